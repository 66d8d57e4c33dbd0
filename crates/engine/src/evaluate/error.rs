//! Why a model could not be judged.

use std::path::PathBuf;
use std::sync::Arc;

use dualgrain_device::DeviceError;
use dualgrain_format::text::TextError;
use thiserror::Error;

use crate::EngineError;
use crate::text::tokenizer::TokenizerError;

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
    /// A file that is no UTF-8 text.
    #[error("{}: expected UTF-8 text, got {got}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is there.
        got: String,
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
    /// A step of the model failed.
    #[error("{0}")]
    Step(Arc<EngineError>),
    /// The device failed at an operation.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A text that could not be encoded.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

impl From<TextError> for EvaluateError {
    fn from(error: TextError) -> Self {
        match error {
            TextError::Read { path, source } => Self::Read { path, source },
            TextError::Content { path, got } => Self::Content { path, got },
        }
    }
}
