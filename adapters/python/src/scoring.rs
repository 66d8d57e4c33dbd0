//! Logits and log-likelihoods of given tokens.
//!
//! As where tasks are scored (`dualgrain::evaluate`): sequences run on a session of their own, logits are read as their steps end, and
//! log-probabilities are summed in f64 in the order of the tokens. What shares a step changes no bit, so both give the same sums.

use std::collections::HashMap;
use std::sync::Arc;

use dualgrain::engine::scheduler::{Event, Scheduler, TokenRequest};
use dualgrain::engine::{Session, SessionError};
use dualgrain::{AnyDevice, Device, Model, SamplingParams, SequenceId, SessionLimits};
use pyo3::prelude::*;

use crate::errors::{ArgumentError, ModelError, exception};
use crate::watch::Watch;

/// Sum of log-probabilities, and whether every token is the likeliest.
pub type Scored = (f64, bool);

/// Tokens run at once.
const STEP_TOKENS: usize = 512;
/// Tokens the KV cache of a scoring session holds, shared by as many sequences as fit.
const CACHE_TOKENS: usize = 8192;
/// More sequences than this in a step gain nothing.
const NUM_SEQUENCES_MAX: usize = 16;
/// Elements of logits looked at together, 16 MB, and rows at most.
const ELEMENTS: usize = 1 << 22;
const ROWS: usize = 128;

/// Rows of logits that came together.
struct Rows<'a> {
    id: SequenceId,
    /// Position of the first one's token.
    first: usize,
    /// [rows, vocab].
    logits: &'a mut [f32],
}

/// Runs sequences and reads the logits after their tokens.
struct Reader {
    scheduler: Scheduler<AnyDevice>,
    model: Arc<Model<AnyDevice>>,
    values: Vec<f32>,
    /// Log-probabilities instead of logits.
    normalized: bool,
}

impl Reader {
    fn new(model: &Arc<Model<AnyDevice>>, longest: usize, normalized: bool) -> PyResult<Self> {
        let most = model.config().max_positions;
        if longest > most {
            return Err(ArgumentError::new_err(format!(
                "expected at most {most} tokens in a sequence (the model's positions), got {longest}"
            )));
        }
        let context = longest.max(2);
        let num_sequences = (CACHE_TOKENS / context).clamp(1, NUM_SEQUENCES_MAX);
        let step_tokens = STEP_TOKENS.min(num_sequences * context);
        let limits = SessionLimits {
            logit_rows: num_rows(model),
            ..SessionLimits::new(num_sequences, context, step_tokens)
        };
        let session = Session::new(Arc::clone(model), limits).map_err(exception)?;
        Ok(Self {
            scheduler: Scheduler::new(session),
            model: Arc::clone(model),
            values: Vec::new(),
            normalized,
        })
    }

    /// Takes a sequence over; the logits after each token from `first` on will be read.
    fn admit(&mut self, tokens: &[u32], first: usize) -> PyResult<SequenceId> {
        let request = TokenRequest {
            prompt: tokens.to_vec(),
            sampling: SamplingParams::GREEDY,
            max_tokens: Some(0),
            end_tokens: Vec::new(),
            keep: false,
            score_from: Some(first),
            constraint: None,
        };
        self.scheduler.admit(request).map_err(exception)
    }

    /// Runs a step and gives its rows to `take`; whether there was one to run.
    fn step(&mut self, mut take: impl FnMut(Rows<'_>) -> PyResult<()>) -> PyResult<bool> {
        if self.scheduler.is_idle() {
            return Ok(false);
        }
        for event in self.scheduler.step().events {
            match event {
                Event::Rows {
                    id,
                    positions,
                    first_row,
                } => {
                    let count = num_rows(&self.model);
                    for start in positions.clone().step_by(count) {
                        let rows = first_row + (start - positions.start) as u32..;
                        let rows: Vec<u32> = rows.take(count.min(positions.end - start)).collect();
                        let logits = self.read(&rows)?;
                        take(Rows {
                            id,
                            first: start,
                            logits,
                        })?;
                    }
                }
                Event::Failed { error, .. } => {
                    return Err(exception(dualgrain::evaluate::EvaluateError::Step(error)));
                }
                Event::Finished { .. } | Event::Token { .. } => {}
            }
        }
        Ok(true)
    }

    fn read(&mut self, rows: &[u32]) -> PyResult<&mut [f32]> {
        let device = self.model.device();
        let logits = self.scheduler.logits(rows).map_err(exception)?;
        if self.normalized {
            device.log_softmax(logits).map_err(exception)?;
        }
        self.values
            .resize(rows.len() * self.model.config().vocab_size, 0.0);
        device
            .download(logits, 0..rows.len(), &mut self.values)
            .map_err(exception)?;
        Ok(&mut self.values)
    }
}

fn num_rows(model: &Model<AnyDevice>) -> usize {
    (ELEMENTS / model.config().vocab_size.max(1)).clamp(1, ROWS)
}

/// Logits `[tokens.len() - first, vocab]` after the tokens from `first` on.
pub fn logits(
    model: &Arc<Model<AnyDevice>>,
    tokens: &[u32],
    first: usize,
    watch: &Watch,
) -> PyResult<Vec<f32>> {
    if first >= tokens.len() {
        return Err(ArgumentError::new_err(format!(
            "first: expected an index below {}, the number of tokens, got {first}",
            tokens.len()
        )));
    }
    let vocab_size = model.config().vocab_size;
    let mut reader = Reader::new(model, tokens.len(), false)?;
    reader.admit(tokens, first)?;
    let mut all = Vec::with_capacity((tokens.len() - first) * vocab_size);
    while reader.step(|rows| {
        all.extend_from_slice(rows.logits);
        Ok(())
    })? {
        watch.look()?;
    }
    Ok(all)
}

/// Of each sequence: the sum of the log-probabilities of the tokens from an index on, and whether each is the likeliest.
pub fn loglikelihoods(
    model: &Arc<Model<AnyDevice>>,
    sequences: &[(Vec<u32>, usize)],
    watch: &Watch,
) -> PyResult<Vec<Scored>> {
    let vocab_size = model.config().vocab_size;
    check(sequences, vocab_size)?;
    // Nothing is scored after a last token, so it is not run.
    let longest = sequences
        .iter()
        .map(|(tokens, _)| tokens.len() - 1)
        .max()
        .unwrap_or(1);
    let mut reader = Reader::new(model, longest, true)?;
    let mut places = HashMap::new();
    for (place, (tokens, start)) in sequences.iter().enumerate() {
        places.insert(reader.admit(&tokens[..tokens.len() - 1], start - 1)?, place);
    }
    let mut scored = vec![(0.0, true); sequences.len()];
    let mut read = 0;
    let total = sequences
        .iter()
        .map(|(tokens, start)| (tokens.len() - start) as u64)
        .sum();
    while reader.step(|rows| {
        let place = places[&rows.id];
        let targets = sequences[place].0[rows.first + 1..].iter();
        for (row, target) in rows.logits.chunks_exact(vocab_size).zip(targets) {
            add(&mut scored[place], row, *target as usize)?;
            read += 1;
        }
        Ok(())
    })? {
        watch.tell("scoring", read, total)?;
    }
    Ok(scored)
}

/// Adds the log-probability of `target` in a row.
fn add(scored: &mut Scored, row: &[f32], target: usize) -> PyResult<()> {
    let logprob = row.get(target).copied().unwrap_or(f32::NAN);
    // Rounding may put the log-probability of a certain token a hair above 0.
    if !(logprob.is_finite() && logprob <= 1e-3) {
        return Err(ModelError::new_err(format!(
            "the log-probability of a token is {logprob}: expected a finite number <= 0 (damaged weights?)"
        )));
    }
    scored.0 += f64::from(logprob);
    scored.1 &= likeliest(row) == target;
    Ok(())
}

/// The largest value's index, the first of equals.
fn likeliest(row: &[f32]) -> usize {
    let larger = |best: (usize, f32), (index, &value): (usize, &f32)| match value > best.1 {
        true => (index, value),
        false => best,
    };
    row.iter().enumerate().fold((0, f32::NEG_INFINITY), larger).0
}

/// Refuses sequences of which nothing can be scored.
fn check(sequences: &[(Vec<u32>, usize)], vocab_size: usize) -> PyResult<()> {
    for (index, (tokens, start)) in sequences.iter().enumerate() {
        if !(1..tokens.len()).contains(start) {
            return Err(ArgumentError::new_err(format!(
                "sequence {index}: expected a first scored token from 1 to {}, got {start} of {} tokens",
                tokens.len().saturating_sub(1),
                tokens.len()
            )));
        }
        if let Some(&got) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
            let outside = SessionError::Token { got, vocab_size };
            return Err(ArgumentError::new_err(format!("sequence {index}: {outside}")));
        }
    }
    Ok(())
}
