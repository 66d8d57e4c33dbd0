//! What every judgement runs: a session in bounded steps, log-probabilities of a bounded number of its rows at a time.

use std::sync::Arc;

use dualgrain_device::Device;

use super::error::EvaluateError;
use super::windows::check_context;
use crate::{EngineError, Model, Session, SessionError, SessionLimits};

/// Receives (done, total) after every window or item.
pub type Progress<'a> = dyn FnMut(usize, usize) + 'a;

/// Tokens run at once: enough to use each weight many times, little enough to bound the buffers.
pub(super) const STEP_TOKENS: usize = 512;

/// Rows looked at together: with a vocabulary of 32 k they take 16 MB.
const ROWS: usize = 128;
/// Elements of a buffer above which fewer rows are taken.
const ELEMENTS: usize = 1 << 22;

/// A host buffer for log-probabilities [rows, vocab] of a model.
pub(super) struct RowBuffer<D: Device> {
    model: Arc<Model<D>>,
    values: Vec<f32>,
}

impl<D: Device> RowBuffer<D> {
    pub fn new(model: Arc<Model<D>>) -> Self {
        Self {
            model,
            values: Vec::new(),
        }
    }

    pub fn vocab_size(&self) -> usize {
        self.model.config().vocab_size
    }

    /// How many rows to ask for at once.
    pub fn num_rows(&self) -> usize {
        num_rows(self.vocab_size())
    }

    /// Log-probabilities [rows.len(), vocab] of rows of the session's last step.
    pub fn fill(&mut self, session: &mut Session<D>, rows: &[u32]) -> Result<&[f32], EvaluateError> {
        let logits = session.logits(rows)?;
        let device = self.model.device();
        device.log_softmax(logits)?;
        self.values
            .resize(rows.len() * self.model.config().vocab_size, 0.0);
        device.download(logits, 0..rows.len(), &mut self.values)?;
        Ok(&self.values)
    }
}

/// A session that holds `num_sequences` of `context` tokens and runs them in bounded steps.
pub(super) fn session<D: Device>(
    model: &Arc<Model<D>>,
    num_sequences: usize,
    context: usize,
) -> Result<Session<D>, EvaluateError> {
    check_context(context, model.config().max_positions)?;
    let step_tokens = STEP_TOKENS.min(num_sequences * context);
    let limits = SessionLimits {
        logit_rows: num_rows(model.config().vocab_size),
        ..SessionLimits::new(num_sequences, context, step_tokens)
    };
    Ok(Session::new(model.clone(), limits)?)
}

/// How many rows of `vocab_size` log-probabilities to look at together.
fn num_rows(vocab_size: usize) -> usize {
    (ELEMENTS / vocab_size.max(1)).clamp(1, ROWS)
}

/// The largest value's index, the first of equals.
pub(super) fn argmax(row: &[f32]) -> usize {
    let larger = |best: (usize, f32), (index, &value): (usize, &f32)| {
        if value > best.1 { (index, value) } else { best }
    };
    row.iter().enumerate().fold((0, f32::NEG_INFINITY), larger).0
}

/// The log-probability of `token` in a row, or an error that tells its place (text, position).
pub(super) fn log_probability(
    row: &[f32],
    token: u32,
    place: impl FnOnce() -> (String, usize),
) -> Result<f64, EvaluateError> {
    let outside = SessionError::Token {
        got: token,
        vocab_size: row.len(),
    };
    let value = *row.get(token as usize).ok_or(EngineError::Session(outside))?;
    // Rounding may put the log-probability of a certain token a hair above 0.
    if value.is_finite() && value <= 1e-3 {
        return Ok(f64::from(value));
    }
    let (place, position) = place();
    Err(EvaluateError::NotFinite {
        what: "log-probability",
        place,
        position,
        expected: "a finite number <= 0",
        got: f64::from(value),
    })
}
