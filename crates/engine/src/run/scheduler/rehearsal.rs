//! A request of nobody, run before the first of somebody.

use std::sync::Arc;

use dualgrain_device::Device;
use dualgrain_device::sampling::SamplingParams;

use super::{Event, Scheduler, TokenRequest};
use crate::EngineError;

/// Tokens of its prompt where they fit: more than a page, so that every kind of attention is met.
const PROMPT_TOKENS: usize = 200;
/// Tokens it generates: a first one with the prompt, one step by itself, one that a card records, one that it replays.
const GENERATED_TOKENS: usize = 4;

impl<D: Device> Scheduler<D> {
    /// Makes ready what requests would otherwise wait for: the kernels that a card compiles when they are first used. A server does so
    /// before it says that it is ready; a single request would wait longer for all kernels than for its own. Nothing may be running.
    ///
    /// # Errors
    /// The device failed.
    pub fn prepare(&mut self) -> Result<(), EngineError> {
        let limits = self.session.limits();
        let model = Arc::clone(self.session.model());
        if model.device().prepare(&model.linears(), limits.step_tokens)? {
            self.rehearse()?;
        }
        Ok(())
    }

    /// Runs a prompt and some tokens, and forgets them: what a device makes ready when it runs an operation first is ready afterwards.
    fn rehearse(&mut self) -> Result<(), EngineError> {
        debug_assert!(self.is_idle(), "a rehearsal comes before requests");
        let limits = self.session.limits();
        let room = limits.context_tokens.saturating_sub(GENERATED_TOKENS).max(1);
        let vocab_size = self.session.model().config().vocab_size;
        self.admit(TokenRequest {
            prompt: (0..PROMPT_TOKENS.min(room))
                .map(|id| (id % vocab_size) as u32)
                .collect(),
            sampling: SamplingParams::GREEDY,
            max_tokens: Some(GENERATED_TOKENS),
            end_tokens: Vec::new(),
            keep: false,
            score_from: None,
            constraint: None,
        })?;
        while !self.is_idle() {
            for event in self.step().events {
                if let Event::Failed { error, .. } = event {
                    return Err(EngineError::Rehearsal { source: error });
                }
            }
        }
        Ok(())
    }
}
