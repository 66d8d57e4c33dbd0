//! What rounding one linear does to the predictions of the whole model.
//!
//! The original model runs block by block over a few windows. Behind each block stands one copy of the stream for every linear that has
//! been rounded so far, alone: the copy goes through its own block with the rounded weights and through all later blocks as they were.
//! At the end the predictions of every copy are compared with those of the original. So a block's weights are read once, and a linear
//! costs a run through the blocks behind it.

use std::path::Path;

use dualgrain_device::Statistics;
use dualgrain_engine::evaluate::kl_divergence;
use dualgrain_engine::{
    Block, BlockSpec, Embedding, Head, LinearId, LinearSpec, ModelConfig, Projection, Role,
};
use dualgrain_format::{FloatLinear, FloatValues, LinearWeights};
use serde::{Deserialize, Serialize};

use crate::budget::level::{LEVELS, output_error};
use crate::calibrate::hidden_states::HiddenStates;
use crate::calibrate::multiply_adds::PassMultiplyAdds;
use crate::calibrate::passes;
use crate::calibrate::windows::Windows;
use crate::error::QuantError;
use crate::methods::rounding::errors_of;
use crate::run::context::RunContext;
use crate::transform::float_head::float_head;

/// What rounding one linear does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sensitivity {
    /// The block.
    pub layer: usize,
    /// `qkv`, `out`, `up` or `down`.
    pub role: String,
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// Mean KL divergence of the model from the original on the held-out windows where this linear alone is rounded to nearest in the
    /// first of the levels, in nats.
    pub divergence: f64,
    /// The linear's squared output error in every level, by that in the first.
    pub errors: [f64; LEVELS.len()],
}

impl Sensitivity {
    /// The divergence that is expected in a level: it grows with the squared error.
    pub fn divergence_at(&self, level: usize) -> f64 {
        self.divergence * self.errors[level]
    }
}

/// Measures the linears that no rule speaks of, on the held-out `windows` of `tokens`. Rows of the streams go to files in `spill` where
/// it is given.
///
/// # Errors
/// The device failed, I/O, cancellation, a broken model.
pub fn measure<D: Statistics>(
    run: &RunContext<'_, D>,
    embedding: &Embedding<D>,
    (tokens, windows): (&[u32], &Windows),
    spill: Option<&Path>,
) -> Result<Vec<Sensitivity>, QuantError> {
    let mut streams = Streams::new(run, embedding, (tokens, windows), spill)?;
    for layer in 0..run.config.num_layers {
        run.meter.start(format!(
            "what rounding does, block {}/{}",
            layer + 1,
            run.config.num_layers
        ));
        streams.pass_block(layer)?;
    }
    run.meter.start("what rounding does, predictions".into());
    streams.compare()
}

/// How many copies of the stream there are at the end: one for every linear with a choice, and the original's.
pub fn num_streams<D: Statistics>(run: &RunContext<'_, D>) -> usize {
    let layers = 0..run.config.num_layers;
    1 + layers.map(|layer| free_roles(run, layer).count()).sum::<usize>()
}

/// The roles of a block that no rule speaks of.
fn free_roles<D: Statistics>(run: &RunContext<'_, D>, layer: usize) -> impl Iterator<Item = Role> {
    let rules = &run.options.schemes;
    Role::ALL.into_iter().filter(move |&role| {
        let id = LinearId::dense(layer, role);
        !rules.iter().any(|rule| rule.covers(id))
    })
}

/// The original's stream and those of the linears rounded so far. Stream `s` has the windows `s * held_out ..`.
struct Streams<'r, 'a, D: Statistics> {
    run: &'r RunContext<'a, D>,
    states: HiddenStates<'a, D>,
    held_out: usize,
    rounded: Vec<Sensitivity>,
}

impl<'r, 'a, D: Statistics> Streams<'r, 'a, D> {
    fn new(
        run: &'r RunContext<'a, D>,
        embedding: &Embedding<D>,
        (tokens, windows): (&[u32], &Windows),
        spill: Option<&Path>,
    ) -> Result<Self, QuantError> {
        let all = windows.repeated(num_streams(run));
        let spill = spill.map(|dir| (dir, "-rounded"));
        let mut states = HiddenStates::new(run.device, run.config, &all, spill)?;
        states.embed(embedding, tokens, windows)?;
        Ok(Self {
            run,
            states,
            held_out: windows.len(),
            rounded: Vec::new(),
        })
    }

    /// Takes every stream through block `layer`, and begins one for each of its linears.
    fn pass_block(&mut self, layer: usize) -> Result<(), QuantError> {
        let run = self.run;
        let mut block = run.original.block(run.device, layer)?;
        let spec = BlockSpec::new(run.config, layer);
        let squares = passes::mean_squares(&mut self.states, &block, self.held_out)?;
        let before = self.rounded.len();
        for role in free_roles(run, layer) {
            let spec = spec.linear(LinearId::dense(layer, role))?;
            self.begin(&mut block, spec, &squares[role as usize])?;
        }
        for stream in 0..=before {
            self.pass(&block, (stream, stream))?;
        }
        Ok(())
    }

    /// Begins the stream of a linear: the original's stream through the block in which that linear alone is rounded.
    fn begin(&mut self, block: &mut Block<D>, spec: &LinearSpec, squares: &[f64]) -> Result<(), QuantError> {
        let run = self.run;
        let (weights, bias) = run.original.linear(spec)?;
        let of_rounding = errors_of(LEVELS[0], &weights, spec.k);
        let first = output_error(&of_rounding, squares);
        let errors = LEVELS.map(|scheme| match scheme == LEVELS[0] {
            true => first,
            false => output_error(&errors_of(scheme, &weights, spec.k), squares),
        });
        let rounded = weights.iter().zip(&of_rounding).map(|(w, e)| w - e).collect();
        let linear = FloatLinear::new(spec.n, spec.k, FloatValues::F32(rounded), bias)?;
        let rounded = Projection::new(run.device, LinearWeights::Float(linear))?;
        let original = block.set_projection(spec.id, rounded)?;
        self.rounded.push(Sensitivity {
            layer: spec.id.layer,
            role: spec.id.role.name().into(),
            n: spec.n,
            k: spec.k,
            divergence: 0.0,
            errors: errors.map(|error| if first > 0.0 { error / first } else { 0.0 }),
        });
        self.pass(block, (0, self.rounded.len()))?;
        block.set_projection(spec.id, original)?;
        Ok(())
    }

    /// Takes the windows of stream `from` through a block; they become those of stream `to`.
    fn pass(&mut self, block: &Block<D>, (from, to): (usize, usize)) -> Result<(), QuantError> {
        let cost = PassMultiplyAdds::new(block.spec(), self.states.window_len()).float_run();
        for window in 0..self.held_out {
            let (from, to) = (from * self.held_out + window, to * self.held_out + window);
            passes::run_block(&mut self.states, block, (from, to))?;
            self.run.meter.advance(cost)?;
        }
        Ok(())
    }

    /// The divergence of every stream's predictions from the original's.
    fn compare(mut self) -> Result<Vec<Sensitivity>, QuantError> {
        let mut predictions = Predictions::new(self.run, self.states.window_len())?;
        let (mut original, mut rounded) = (Vec::new(), Vec::new());
        for window in 0..self.held_out {
            predictions.of(&mut self.states, window, &mut original)?;
            for stream in 1..=self.rounded.len() {
                let of_stream = stream * self.held_out + window;
                predictions.of(&mut self.states, of_stream, &mut rounded)?;
                let sum = predictions.divergence(&original, &rounded);
                self.rounded[stream - 1].divergence += sum / (self.held_out * predictions.rows) as f64;
            }
        }
        Ok(self.rounded)
    }
}

/// The end of the model: what it predicts from a stream.
struct Predictions<'r, 'a, D: Statistics> {
    run: &'r RunContext<'a, D>,
    head: Head<D>,
    /// [rows, vocab]
    logits: D::Matrix,
    rows: usize,
}

impl<'r, 'a, D: Statistics> Predictions<'r, 'a, D> {
    fn new(run: &'r RunContext<'a, D>, rows: usize) -> Result<Self, QuantError> {
        let head = LinearWeights::Float(float_head(run.config, run.original)?);
        let norm = run.original.norm(run.device, &run.config.final_norm())?;
        Ok(Self {
            head: Head::of_parts(norm, Projection::new(run.device, head)?, run.config),
            logits: run.device.matrix(rows, run.config.vocab_size)?,
            rows,
            run,
        })
    }

    /// Log-probabilities `[rows, vocab]` after the tokens of a window.
    fn of(
        &mut self,
        states: &mut HiddenStates<'_, D>,
        window: usize,
        log_probabilities: &mut Vec<f32>,
    ) -> Result<(), QuantError> {
        let (device, config) = (self.run.device, self.run.config);
        passes::head_logits(states, &self.head, window, &mut self.logits)?;
        device.log_softmax(&mut self.logits)?;
        log_probabilities.resize(self.rows * config.vocab_size, 0.0);
        device.download(&self.logits, 0..self.rows, log_probabilities)?;
        let multiply_adds = head_multiply_adds(config, self.rows);
        self.run.meter.advance(multiply_adds)
    }

    /// The sum of KL(original || rounded) over the rows.
    fn divergence(&self, original: &[f32], rounded: &[f32]) -> f64 {
        let vocab = self.run.config.vocab_size;
        let mut divergences = vec![0.0; self.rows];
        self.run
            .pool
            .for_each_chunk(&mut divergences, 1, |row, divergence| {
                let range = row * vocab..(row + 1) * vocab;
                divergence.fill(kl_divergence(&original[range.clone()], &rounded[range]));
            });
        divergences.iter().sum()
    }
}

/// Multiply-adds of a measurement on `num_windows` windows of `window_tokens`, where every linear has a choice.
pub fn multiply_adds(config: &ModelConfig, (num_windows, window_tokens): (usize, usize)) -> u64 {
    let block = PassMultiplyAdds::new(&BlockSpec::new(config, 0), window_tokens).float_run();
    let layers = config.num_layers as u64;
    let roles = Role::ALL.len() as u64;
    // Of the linears of block l, l blocks from the end, each goes through l + 1 blocks; the original twice through all.
    let blocks = roles * layers * (layers + 1) / 2 + 2 * layers;
    let heads = 1 + roles * layers;
    num_windows as u64 * (blocks * block + heads * head_multiply_adds(config, window_tokens))
}

fn head_multiply_adds(config: &ModelConfig, tokens: usize) -> u64 {
    (tokens * config.hidden_size) as u64 * config.vocab_size as u64
}
