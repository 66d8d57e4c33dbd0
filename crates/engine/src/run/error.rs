//! Why a session refused a step.

use thiserror::Error;

/// Why a session refused a step.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum SessionError {
    /// A limit is zero or beyond what the model can do.
    #[error("{what} is {got}, expected {expected}")]
    Limit {
        /// Which limit.
        what: &'static str,
        /// The value asked for.
        got: usize,
        /// What is possible.
        expected: String,
    },
    /// A token id outside the vocabulary.
    #[error(
        "token id {got} is outside the vocabulary of {vocab_size}: does the tokenizer belong to this model?"
    )]
    Token {
        /// The id.
        got: u32,
        /// Entries of the vocabulary.
        vocab_size: usize,
    },
    /// A sequence would outgrow its context.
    #[error("sequence {sequence} would have {got} tokens, its context holds {context_tokens}")]
    Context {
        /// The sequence.
        sequence: usize,
        /// Tokens it would have.
        got: usize,
        /// Tokens it may have.
        context_tokens: usize,
    },
    /// More tokens at once than the session has buffers for.
    #[error("a step of {got} tokens, the session's buffers hold {step_tokens}")]
    StepTokens {
        /// Tokens asked for.
        got: usize,
        /// Tokens possible.
        step_tokens: usize,
    },
    /// A sequence index outside the session, or twice in one step.
    #[error("sequence {sequence} {problem}")]
    Sequence {
        /// The sequence.
        sequence: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Fewer free pages than a step needs.
    #[error("a step needs {needed} more pages of the KV cache, {free} are free")]
    Pages {
        /// Pages the step must take.
        needed: usize,
        /// Pages that nobody holds.
        free: usize,
    },
    /// Nothing to run.
    #[error("a step needs at least one token")]
    Empty,
    /// Logits of more rows than the session has room for.
    #[error("logits of {got} rows at once, the session's buffer holds {logit_rows}")]
    LogitRows {
        /// Rows asked for.
        got: usize,
        /// Rows possible.
        logit_rows: usize,
    },
    /// Logits of a row that the last step did not have.
    #[error("logits of row {row}, the last step had {rows} rows")]
    Row {
        /// The row asked for.
        row: u32,
        /// Rows of the last step.
        rows: usize,
    },
}
