//! The output layer in integers, when the options ask for it: INT8 row by row, or the dual-grained format with the same
//! search as the blocks on what the last norm puts out.

use dualgrain_device::Device;
use dualgrain_engine::{EngineError, ModelConfig, Norm, Weights};
use dualgrain_format::checkpoint::widen;
use dualgrain_format::{
    ActivationScheme, Int8Linear, LinearWeights, QuantizedLinear, QuantizedParts, TensorScheme,
};

use crate::calibrate::hidden_states::{InputStats, Stream};
use crate::error::QuantError;
use crate::methods::linear::{FloatRows, LinearFit, quantize_linear};
use crate::report::json::{LinearReport, Trial};
use crate::run::block::Context;
use crate::transform::activation_error::static_scale;

/// Rows that are widened and searched at a time: a head of 128,256 rows would take gigabytes in f32.
const SLICE_ROWS: usize = 4096;

/// Name of the head in reports.
const ROLE: &str = "head";

/// A quantized head, with its report if it was searched for.
pub type QuantizedHead = (LinearWeights, Option<LinearReport>);

/// The head in the scheme that the options ask for; `None` when it stays as it is. `stream` stands after the last block.
///
/// # Errors
/// See [`QuantError`].
pub fn quantize_head<D: Device>(
    context: &Context<'_, D>,
    stream: &mut Stream<'_, D>,
) -> Result<Option<QuantizedHead>, QuantError> {
    let rows = || FloatHead::new(context.config, context.weights);
    Ok(match context.options.lm_head {
        TensorScheme::Float => None,
        TensorScheme::W8 => Some((LinearWeights::W8(int8(&rows()?)?), None)),
        TensorScheme::W4 => {
            context.meter.start("head".into());
            let norm = Norm::load(context.device, context.weights, &context.config.final_norm())?;
            let stats = stream.head_input(&norm, context.meter)?;
            let (linear, report) = dual_grained(context, &rows()?, &stats)?;
            Some((LinearWeights::W4(linear), Some(report)))
        }
    })
}

/// The head's rows as the checkpoint stores them: a tied head is the embedding.
struct FloatHead<'a> {
    weights: &'a Weights,
    dtype: dualgrain_format::checkpoint::Dtype,
    bytes: &'a [u8],
    n: usize,
    k: usize,
}

impl<'a> FloatHead<'a> {
    fn new(config: &ModelConfig, weights: &'a Weights) -> Result<Self, QuantError> {
        let (head, embedding) = (config.family.head_name(), config.family.embedding_name());
        let name = if config.tie_embeddings { embedding } else { head };
        let (dtype, _, bytes) = weights
            .raw(&format!("{name}.weight"))
            .map_err(EngineError::from)?;
        Ok(Self {
            weights,
            dtype,
            bytes,
            n: config.vocab_size,
            k: config.hidden_size,
        })
    }

    /// Slices of at most [`SLICE_ROWS`] rows in f32.
    fn slices(&self) -> impl Iterator<Item = Vec<f32>> {
        let row_bytes = self.bytes.len() / self.n;
        self.bytes.chunks(SLICE_ROWS * row_bytes).map(move |stored| {
            let mut rows = vec![0.0; stored.len() / row_bytes * self.k];
            widen(self.dtype, stored, &mut rows);
            self.weights.release_pages();
            rows
        })
    }
}

/// Each row by its abs-max / 127.
fn int8(head: &FloatHead<'_>) -> Result<Int8Linear, QuantError> {
    let (n, k) = (head.n, head.k);
    let (mut w8, mut s1) = (Vec::with_capacity(n * k), Vec::with_capacity(n));
    for rows in head.slices() {
        for row in rows.chunks_exact(k) {
            let scale = row.iter().fold(0.0_f32, |max, w| max.max(w.abs())) / 127.0;
            let inv_scale = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            let code = |w: &f32| (w * inv_scale).round_ties_even().clamp(-127.0, 127.0) as i8;
            w8.extend(row.iter().map(code));
            s1.push(scale);
        }
    }
    Ok(Int8Linear::new((n, k), w8, s1, None, None)?)
}

/// Searches slice by slice: a row's scales depend on that row and the Gram matrix alone.
fn dual_grained<D: Device>(
    context: &Context<'_, D>,
    head: &FloatHead<'_>,
    stats: &InputStats,
) -> Result<(QuantizedLinear, LinearReport), QuantError> {
    let options = context.options;
    let no_smoothing = vec![1.0; head.k];
    let mut report = None;
    let mut whole = QuantizedParts {
        q: Vec::new(),
        zero: Vec::new(),
        s2: Vec::new(),
        s1: Vec::new(),
        bias: None,
        ta: (options.activations == ActivationScheme::Static)
            .then(|| static_scale(&stats.maxima, &no_smoothing)),
    };
    let mut whole_fit = LinearFit::default();
    for rows in head.slices() {
        report.get_or_insert_with(|| {
            let trial = Trial::new(context.device, options, stats, &rows);
            trial.report(head.n, &no_smoothing, Vec::new(), None)
        });
        let layer = FloatRows {
            weights: &rows,
            k: head.k,
            bias: None,
        };
        let (size, search, meter) = (options.group_size, options.search, context.meter);
        let (linear, fit) = quantize_linear(context.device, layer, &stats.gram, size, search, meter)?;
        let QuantizedParts { q, zero, s2, s1, .. } = linear.parts();
        whole.q.extend_from_slice(q);
        whole.zero.extend_from_slice(zero);
        whole.s2.extend_from_slice(s2);
        whole.s1.extend_from_slice(s1);
        whole_fit.add(&fit);
    }
    let linear = QuantizedLinear::new((head.n, head.k), options.group_size, whole)?;
    let mut report = report.unwrap_or_default();
    report.finish(context.config.num_layers, ROLE, &linear, &whole_fit);
    Ok((linear, report))
}
