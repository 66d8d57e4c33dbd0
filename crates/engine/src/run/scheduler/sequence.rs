//! A sequence that the scheduler owns: what was asked for, its tokens so far, and why it ends.

use std::ops::Range;

use dualgrain_device::sampling::SamplingParams;
use serde::Serialize;

use crate::run::constraint::{Constrained, ConstraintError, Progress, SharedConstraint};

/// Names a sequence from its admission to its end; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct SequenceId(pub(crate) u64);

/// Tokens to continue.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenRequest {
    /// Tokens to run before the first new one, not empty.
    pub prompt: Vec<u32>,
    /// How a token is chosen.
    pub sampling: SamplingParams,
    /// End after this many new tokens; `None` goes on to the end of the context.
    pub max_tokens: Option<usize>,
    /// Tokens that end the sequence and do not belong to it.
    pub end_tokens: Vec<u32>,
    /// Keep the cached keys and values when the sequence ends, until their room is needed: a later prompt that begins with
    /// the same tokens need not run them again.
    pub keep: bool,
    /// Say where the logits after each prompt token from this position on stand ([`Event::Rows`](super::Event::Rows)). A scored request for no
    /// new tokens ends when its prompt has been run.
    pub score_from: Option<usize>,
    /// What the new tokens must look like. It sees those alone, not the prompt.
    pub constraint: Option<SharedConstraint>,
}

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model gave an end token, or a constraint has nothing that could follow.
    Eos,
    /// A stop string came.
    StopString,
    /// `max_tokens` were generated.
    MaxTokens,
    /// The sequence is as long as its context allows.
    Context,
    /// The caller broke off.
    Cancelled,
}

/// A sequence under way.
#[derive(Debug)]
pub(super) struct Sequence {
    pub id: SequenceId,
    pub request: TokenRequest,
    /// The prompt and what was generated after it.
    pub tokens: Vec<u32>,
    /// The first prompt position whose logits have not been told of.
    next_scored: usize,
    /// How far the new tokens follow the request's constraint; it goes along when the sequence gives its pages up, so no token
    /// is told to it twice.
    pub constrained: Option<Constrained>,
    /// The last turn in which tokens of the sequence were run.
    pub last_turn: u64,
}

impl Sequence {
    pub fn new(id: SequenceId, request: TokenRequest) -> Self {
        Self {
            id,
            tokens: request.prompt.clone(),
            next_scored: request.score_from.unwrap_or(usize::MAX),
            constrained: request.constraint.as_ref().map(Constrained::new),
            request,
            last_turn: 0,
        }
    }

    /// Tokens generated so far.
    pub fn generated(&self) -> &[u32] {
        &self.tokens[self.request.prompt.len()..]
    }

    /// The first tokens, as far as their keys and values may be those of another sequence: the last token is run, and so is every
    /// token whose logits are wanted.
    pub fn reusable(&self) -> &[u32] {
        let last = self.tokens.len() - 1;
        &self.tokens[..last.min(self.next_scored)]
    }

    /// Which of the tokens at `positions`, which were run, are wanted for their logits; they are wanted once.
    pub fn score(&mut self, positions: Range<usize>) -> Option<Range<usize>> {
        let end = positions.end.min(self.request.prompt.len());
        let scored = positions.start.max(self.next_scored)..end;
        if scored.is_empty() {
            return None;
        }
        self.next_scored = end;
        Some(scored)
    }

    /// Takes the next token; says why the sequence ends with it, if it does. `has_room` says whether the token could be run.
    ///
    /// # Errors
    /// The constraint has no place for the token.
    pub fn accept(&mut self, token: u32, has_room: bool) -> Result<Option<FinishReason>, ConstraintError> {
        if self.request.end_tokens.contains(&token) {
            return Ok(Some(FinishReason::Eos));
        }
        if let Some(constrained) = &mut self.constrained
            && constrained.accept(token)? == Progress::Complete
        {
            self.tokens.push(token);
            return Ok(Some(FinishReason::Eos));
        }
        self.tokens.push(token);
        Ok(self.limit_reached(has_room))
    }

    /// Which limit the tokens so far have reached.
    fn limit_reached(&self, has_room: bool) -> Option<FinishReason> {
        if self
            .request
            .max_tokens
            .is_some_and(|max| self.generated().len() >= max)
        {
            return Some(FinishReason::MaxTokens);
        }
        (!has_room).then_some(FinishReason::Context)
    }
}
