//! What every judgement runs: scored sequences in bounded steps, log-probabilities of a bounded number of rows at a time.

use std::ops::Range;
use std::sync::Arc;

use dualgrain_device::Device;
use dualgrain_device::sampling::SamplingParams;

use super::error::EvaluateError;
use super::windows::check_context;
use crate::scheduler::{Event, Scheduler, TokenRequest};
use crate::{EngineError, Model, SequenceId, Session, SessionError, SessionLimits};

/// Receives (done, total) after every window or item.
pub type Progress<'a> = dyn FnMut(usize, usize) + 'a;

/// Tokens run at once: enough to use each weight many times, little enough to bound the buffers.
const STEP_TOKENS: usize = 512;

/// Rows looked at together: with a vocabulary of 32 k they take 16 MB.
const ROWS: usize = 128;
/// Elements of a buffer above which fewer rows are taken.
const ELEMENTS: usize = 1 << 22;

/// Tokens the KV cache of a scoring session holds, shared by as many sequences as fit.
const CACHE_TOKENS: usize = 8192;
/// More sequences than this in a step gain nothing.
const NUM_SEQUENCES_MAX: usize = 16;

/// Runs sequences of one model and reads the logits or log-probabilities after their tokens.
pub struct Scorer<D: Device> {
    scheduler: Scheduler<D>,
    /// [rows, vocab].
    values: Vec<f32>,
}

/// Tokens of a sequence that the last step has run.
#[derive(Debug, Clone)]
pub struct ScoredRows {
    /// The sequence.
    pub id: SequenceId,
    /// Where they stand in it.
    pub positions: Range<usize>,
    /// Row of the step that holds the first of them.
    first_row: u32,
}

impl ScoredRows {
    /// In parts of at most `count` tokens.
    pub fn parts(&self, count: usize) -> impl Iterator<Item = Self> {
        let (all, starts) = (self.clone(), self.positions.clone().step_by(count));
        starts.map(move |start| Self {
            id: all.id,
            positions: start..(start + count).min(all.positions.end),
            first_row: all.first_row + (start - all.positions.start) as u32,
        })
    }
}

/// What a step of a [`Scorer`] has run.
#[derive(Debug, Default)]
pub struct ScoredStep {
    /// Tokens whose log-probabilities can be read now.
    pub rows: Vec<ScoredRows>,
    /// Sequences that are done.
    pub finished: Vec<SequenceId>,
}

impl<D: Device> Scorer<D> {
    /// Room for sequences of `longest` tokens, as many at once as gain something.
    ///
    /// # Errors
    /// A sequence beyond the model's positions; the device has no room.
    pub fn for_sequences(model: &Arc<Model<D>>, longest: usize) -> Result<Self, EvaluateError> {
        let context = longest.max(2);
        let num_sequences = (CACHE_TOKENS / context).clamp(1, NUM_SEQUENCES_MAX);
        Self::new(model, num_sequences, context)
    }

    /// Room for `num_sequences` of `context` tokens.
    ///
    /// # Errors
    /// As [`Self::for_sequences`].
    pub fn new(model: &Arc<Model<D>>, num_sequences: usize, context: usize) -> Result<Self, EvaluateError> {
        check_context(context, model.config().max_positions)?;
        let step_tokens = STEP_TOKENS.min(num_sequences * context);
        let limits = SessionLimits {
            logit_rows: num_rows(model.config().vocab_size),
            ..SessionLimits::new(num_sequences, context, step_tokens)
        };
        let session = Session::new(model.clone(), limits)?;
        Ok(Self {
            scheduler: Scheduler::new(session),
            values: Vec::new(),
        })
    }

    /// Takes a sequence over; what follows each token from `first` on will be scored.
    ///
    /// # Errors
    /// No token, too many, or one outside the vocabulary.
    pub fn admit(&mut self, tokens: &[u32], first: usize) -> Result<SequenceId, EvaluateError> {
        Ok(self.scheduler.admit(TokenRequest {
            constraint: None,
            prompt: tokens.to_vec(),
            sampling: SamplingParams::GREEDY,
            max_tokens: Some(0),
            end_tokens: Vec::new(),
            keep: false,
            score_from: Some(first),
        })?)
    }

    /// Runs a step; `None` when no sequence is left.
    ///
    /// # Errors
    /// The model failed.
    pub fn step(&mut self) -> Result<Option<ScoredStep>, EvaluateError> {
        if self.scheduler.is_idle() {
            return Ok(None);
        }
        let mut step = ScoredStep::default();
        for event in self.scheduler.step().events {
            match event {
                Event::Rows {
                    id,
                    positions,
                    first_row,
                } => step.rows.push(ScoredRows {
                    id,
                    positions,
                    first_row,
                }),
                Event::Finished { id, .. } => step.finished.push(id),
                Event::Failed { error, .. } => return Err(EvaluateError::Step(error)),
                Event::Token { .. } => {}
            }
        }
        Ok(Some(step))
    }

    /// Log-probabilities `[rows.len(), vocab]` after tokens of the last step.
    ///
    /// # Errors
    /// The device failed.
    pub fn log_probabilities(&mut self, rows: &ScoredRows) -> Result<&[f32], EvaluateError> {
        self.read(rows, true)
    }

    /// Logits `[rows.len(), vocab]` after tokens of the last step.
    ///
    /// # Errors
    /// The device failed.
    pub fn logits(&mut self, rows: &ScoredRows) -> Result<&[f32], EvaluateError> {
        self.read(rows, false)
    }

    fn read(&mut self, rows: &ScoredRows, normalized: bool) -> Result<&[f32], EvaluateError> {
        let len = rows.positions.len();
        let rows: Vec<u32> = (rows.first_row..).take(len).collect();
        let model = Arc::clone(self.scheduler.session().model());
        let logits = self.scheduler.logits(&rows)?;
        if normalized {
            model.device().log_softmax(logits)?;
        }
        self.values.resize(len * model.config().vocab_size, 0.0);
        model.device().download(logits, 0..len, &mut self.values)?;
        Ok(&self.values)
    }

    /// How many rows to ask for at once.
    pub fn num_rows(&self) -> usize {
        num_rows(self.vocab_size())
    }

    /// Tokens of the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.scheduler.session().model().config().vocab_size
    }
}

/// How many rows of `vocab_size` log-probabilities to look at together.
fn num_rows(vocab_size: usize) -> usize {
    (ELEMENTS / vocab_size.max(1)).clamp(1, ROWS)
}

/// The largest value's index, the first of equals.
pub fn argmax(row: &[f32]) -> usize {
    let larger = |best: (usize, f32), (index, &value): (usize, &f32)| {
        if value > best.1 { (index, value) } else { best }
    };
    row.iter().enumerate().fold((0, f32::NEG_INFINITY), larger).0
}

/// The log-probability of `token` in a row.
///
/// # Errors
/// A token outside the vocabulary; a value that is no log-probability, with its place (text, position).
pub fn log_probability(
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
