//! How good a model is: perplexity on a text, divergence from the model it was made from, tasks with right answers.
//!
//! All sums run in f64 and in the order of the text, so the same text gives the same numbers on any number of threads.
//! Standard errors treat predictions (items, in tasks) as independent: the sample deviation by the root of
//! their number. Neighbouring predictions of one text are not quite, so take them as a lower bound.

mod divergence;
mod options;
mod perplexity;
mod scoring;
mod task_file;
mod tasks;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualgrain_device::Device;
use thiserror::Error;

pub use divergence::{DivergenceReport, divergence};
pub use perplexity::{PerplexityReport, perplexity};
pub use task_file::{Task, TaskForm, TaskItem};
pub use tasks::{ItemScore, OptionScore, TaskReport, score_task};

use crate::text::tokenizer::{Tokenizer, TokenizerError};
use crate::{EngineError, Model, Session, SessionLimits};

/// Tokens of a window unless asked otherwise (or the model's positions, if fewer).
pub const DEFAULT_CONTEXT: usize = 1024;
/// Tokens run at once: enough to use each weight many times, little enough to bound the buffers.
const STEP_TOKENS: usize = 512;

/// Why a model could not be judged.
#[derive(Debug, Error)]
pub enum EvaluateError {
    /// A text or task file could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A text that is not UTF-8.
    #[error("{}: expected UTF-8 text, got byte {got:#04x} at offset {offset}", path.display())]
    Utf8 {
        /// The file.
        path: PathBuf,
        /// The first byte that is not UTF-8.
        got: u8,
        /// Its place.
        offset: usize,
    },
    /// A text without a whole window.
    #[error("{name}: expected at least one window of {context} tokens, got {num_tokens} tokens")]
    TextTooShort {
        /// The text.
        name: String,
        /// Its tokens.
        num_tokens: usize,
        /// Tokens of a window.
        context: usize,
    },
    /// A window that cannot be.
    #[error("context: expected 2 to {max_positions} tokens (the model's positions), got {got}")]
    Context {
        /// The window asked for.
        got: usize,
        /// Positions of the model.
        max_positions: usize,
    },
    /// No windows or items were asked for.
    #[error("{what}: expected at least 1, got 0")]
    Nothing {
        /// What was limited to nothing.
        what: &'static str,
    },
    /// Two models that do not speak of the same tokens.
    #[error(
        "the models cannot be compared: the original has {original} tokens in its vocabulary, the other {other}"
    )]
    Vocabulary {
        /// vocab_size of the original.
        original: usize,
        /// vocab_size of the other.
        other: usize,
    },
    /// A model that computes something else than probabilities.
    #[error("the {what} at position {position} of {place} is {got}: expected {expected} (damaged weights?)")]
    NotFinite {
        /// What was computed.
        what: &'static str,
        /// Window, or task file and line.
        place: String,
        /// Position in it.
        position: usize,
        /// The allowed range, in words.
        expected: &'static str,
        /// What came.
        got: f64,
    },
    /// A line of a task file that is not an item.
    #[error("{}:{line}: expected {expected}, got {got}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What should be there.
        expected: String,
        /// What is there.
        got: String,
    },
    /// A task file without items.
    #[error("{}: expected at least one item, one JSON object a line, got none", path.display())]
    NoItems {
        /// The file.
        path: PathBuf,
    },
    /// The model could not run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A text that could not be encoded.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// Receives (done, total) after every window or item.
pub type Progress<'a> = dyn FnMut(usize, usize) + 'a;

/// A text cut into windows that do not overlap; the rest of the text is dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    tokens: Vec<u32>,
    context: usize,
}

impl Windows {
    /// Reads `path` and encodes it as one text, with the special tokens the tokenizer puts around it. `limit` keeps
    /// the first windows only.
    ///
    /// # Errors
    /// A file that is unreadable, not UTF-8, or shorter than a window; a context below 2; a limit of 0.
    pub fn from_file(
        tokenizer: &Tokenizer,
        path: &Path,
        context: usize,
        limit: Option<usize>,
    ) -> Result<Self, EvaluateError> {
        let text = read_text(path)?;
        Self::from_text(tokenizer, &path.display().to_string(), &text, context, limit)
    }

    /// As [`Self::from_file`] for a text in memory; `name` is for messages.
    ///
    /// # Errors
    /// A text shorter than a window; a context below 2; a limit of 0.
    pub fn from_text(
        tokenizer: &Tokenizer,
        name: &str,
        text: &str,
        context: usize,
        limit: Option<usize>,
    ) -> Result<Self, EvaluateError> {
        Self::from_tokens(name, tokenizer.encode(text, true)?, context, limit)
    }

    /// As [`Self::from_text`] for an encoded text.
    ///
    /// # Errors
    /// As [`Self::from_text`].
    pub fn from_tokens(
        name: &str,
        mut tokens: Vec<u32>,
        context: usize,
        limit: Option<usize>,
    ) -> Result<Self, EvaluateError> {
        check_context(context, usize::MAX)?;
        if limit == Some(0) {
            return Err(EvaluateError::Nothing { what: "windows" });
        }
        let num_windows = (tokens.len() / context).min(limit.unwrap_or(usize::MAX));
        if num_windows == 0 {
            return Err(EvaluateError::TextTooShort {
                name: name.to_owned(),
                num_tokens: tokens.len(),
                context,
            });
        }
        tokens.truncate(num_windows * context);
        Ok(Self { tokens, context })
    }

    /// The first `count` windows (at least one).
    pub fn first(&self, count: usize) -> Self {
        let tokens = &self.tokens[..self.context * count.clamp(1, self.len())];
        Self {
            tokens: tokens.to_vec(),
            context: self.context,
        }
    }

    /// Number of windows, at least 1.
    pub fn len(&self) -> usize {
        self.tokens.len() / self.context
    }

    /// Never: there is at least one window.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Tokens of a window.
    pub fn context(&self) -> usize {
        self.context
    }

    /// The windows, `context` tokens each.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        self.tokens.chunks_exact(self.context)
    }
}

fn read_text(path: &Path) -> Result<String, EvaluateError> {
    let bytes = std::fs::read(path).map_err(|source| EvaluateError::Read {
        path: path.to_owned(),
        source,
    })?;
    String::from_utf8(bytes).map_err(|e| {
        let offset = e.utf8_error().valid_up_to();
        EvaluateError::Utf8 {
            path: path.to_owned(),
            got: e.as_bytes().get(offset).copied().unwrap_or(0),
            offset,
        }
    })
}

fn check_context(context: usize, max_positions: usize) -> Result<(), EvaluateError> {
    match (2..=max_positions).contains(&context) {
        true => Ok(()),
        false => Err(EvaluateError::Context {
            got: context,
            max_positions,
        }),
    }
}

/// A session that holds `num_sequences` of `context` tokens and runs them in bounded steps.
fn session<D: Device>(
    model: &Arc<Model<D>>,
    num_sequences: usize,
    context: usize,
) -> Result<Session<D>, EvaluateError> {
    check_context(context, model.config().max_positions)?;
    let limits = SessionLimits {
        num_sequences,
        context_tokens: context,
        step_tokens: STEP_TOKENS.min(num_sequences * context),
    };
    Ok(Session::new(model.clone(), limits)?)
}

/// Running mean and variance (Welford, 1962).
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    count: usize,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, value: f64) {
        self.count += 1;
        let delta = value - self.mean;
        self.mean += delta / self.count as f64;
        self.squares += delta * (value - self.mean);
    }

    /// Standard error of the mean; 0 where a single value allows none.
    fn stderr(&self) -> f64 {
        match self.count {
            0 | 1 => 0.0,
            n => (self.squares / (n - 1) as f64 / n as f64).sqrt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_agree_with_the_textbook() {
        let mut moments = Moments::default();
        for value in [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0] {
            moments.add(value);
        }
        // Mean 5, squared deviations 32: variance 32 / 7, its root by the root of 8.
        assert_eq!(moments.mean, 5.0);
        assert!((moments.stderr() - (32.0f64 / 7.0 / 8.0).sqrt()).abs() < 1e-15);
        assert_eq!(Moments::default().stderr(), 0.0);
    }

    #[test]
    fn windows_do_not_overlap_and_drop_the_rest() {
        let windows = Windows::from_tokens("text", (0..10).collect(), 4, None).unwrap();
        assert_eq!(windows.iter().collect::<Vec<_>>(), [[0, 1, 2, 3], [4, 5, 6, 7]]);
        let first = Windows::from_tokens("text", (0..10).collect(), 4, Some(1)).unwrap();
        assert_eq!((first.len(), first.context()), (1, 4));
        assert_eq!(
            Windows::from_tokens("text", (0..8).collect(), 4, Some(99))
                .unwrap()
                .len(),
            2
        );
    }

    #[test]
    fn texts_without_a_window_are_errors_with_both_numbers() {
        let message = |context, limit| {
            Windows::from_tokens("short.txt", vec![0; 3], context, limit)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            message(4, None),
            "short.txt: expected at least one window of 4 tokens, got 3 tokens"
        );
        assert!(message(1, None).contains("expected 2 to"));
        assert!(message(2, Some(0)).contains("windows: expected at least 1, got 0"));
    }

    #[test]
    fn a_text_that_is_not_utf8_names_the_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("latin1.txt");
        std::fs::write(&path, b"na\xefve").unwrap();
        let error = read_text(&path).unwrap_err().to_string();
        assert!(
            error.ends_with("latin1.txt: expected UTF-8 text, got byte 0xef at offset 2"),
            "{error}"
        );
        assert!(matches!(
            read_text(&dir.path().join("none")),
            Err(EvaluateError::Read { .. })
        ));
    }
}
