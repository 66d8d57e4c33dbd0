//! Sequences being run: page tables, the KV cache, and the buffers of a step.

use std::sync::Arc;

use dualgrain_kernels::Backend;
use thiserror::Error;

use crate::{EngineError, Model, Scratch};

/// How much a session can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// Sequences at once.
    pub num_sequences: usize,
    /// Tokens in one sequence.
    pub context_tokens: usize,
    /// Tokens in one step, over all sequences.
    pub step_tokens: usize,
}

/// Bytes a session holds besides the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionMemory {
    /// Keys and values.
    pub cache_bytes: usize,
    /// Buffers of a step.
    pub scratch_bytes: usize,
}

/// Why a session refused a step.
#[derive(Debug, Error, PartialEq)]
pub enum SessionError {
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
}

/// Sequences of one model, run in ragged steps.
pub struct Session<B: Backend> {
    model: Arc<Model<B>>,
    limits: SessionLimits,
    cache: B::Cache,
    scratch: Scratch<B>,
}

impl<B: Backend> Session<B> {
    /// Buffers and cache for `limits`.
    ///
    /// # Errors
    /// A context longer than the model's positions, or sizes the device cannot hold.
    pub fn new(model: Arc<Model<B>>, limits: SessionLimits) -> Result<Self, EngineError> {
        let _ = (model, limits);
        todo!()
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model<B>> {
        &self.model
    }

    /// The limits.
    pub fn limits(&self) -> SessionLimits {
        self.limits
    }

    /// Runs the next tokens of some sequences: `batch` holds (sequence, its next tokens). Rows of the step are the
    /// tokens in the order given.
    ///
    /// # Errors
    /// A token outside the vocabulary, a sequence beyond the context, more tokens than a step holds, a sequence
    /// named twice; nothing is run then.
    pub fn run(&mut self, batch: &[(usize, &[u32])]) -> Result<(), EngineError> {
        let _ = (batch, &self.cache, &self.scratch);
        todo!()
    }

    /// Runs the next tokens of one sequence in as many steps as needed and returns the row of the last token in the
    /// last step (for [`Self::logits`]).
    ///
    /// # Errors
    /// As [`Self::run`]; no tokens.
    pub fn prefill(&mut self, sequence: usize, tokens: &[u32]) -> Result<u32, EngineError> {
        let _ = (sequence, tokens);
        todo!()
    }

    /// Logits [rows.len(), vocab] of chosen rows of the last step.
    ///
    /// # Errors
    /// A row the last step did not have.
    pub fn logits(&mut self, rows: &[u32]) -> Result<&mut B::Matrix, EngineError> {
        let _ = rows;
        todo!()
    }

    /// Forgets a sequence; its pages are free again.
    pub fn reset(&mut self, sequence: usize) {
        let _ = sequence;
        todo!()
    }

    /// Tokens in a sequence.
    pub fn len(&self, sequence: usize) -> usize {
        let _ = sequence;
        todo!()
    }

    /// Whether a sequence has no tokens.
    pub fn is_empty(&self, sequence: usize) -> bool {
        self.len(sequence) == 0
    }

    /// Bytes held.
    pub fn memory(&self) -> SessionMemory {
        todo!()
    }
}
