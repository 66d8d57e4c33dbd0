//! What a step of the scheduler says.

use std::ops::Range;
use std::sync::Arc;

use dualgrain_device::sampling::ChosenToken;

use super::sequence::{FinishReason, SequenceId};
use crate::EngineError;

/// What happened to a sequence in a step.
#[derive(Debug, Clone)]
pub enum Event {
    /// A token was generated.
    Token {
        /// The sequence.
        id: SequenceId,
        /// The token.
        token: ChosenToken,
    },
    /// Prompt tokens of a request with [`score_from`](super::TokenRequest::score_from) were run. Until the next step
    /// [`Scheduler::logits`](super::Scheduler::logits) gives the logits after them.
    Rows {
        /// The sequence.
        id: SequenceId,
        /// Where the tokens stand in the prompt.
        positions: Range<usize>,
        /// Row of the step that holds the first of them; the others follow.
        first_row: u32,
    },
    /// The sequence ended; it is no more.
    Finished {
        /// The sequence.
        id: SequenceId,
        /// Why.
        reason: FinishReason,
    },
    /// The sequence can not go on; it is no more.
    Failed {
        /// The sequence.
        id: SequenceId,
        /// Why.
        error: Arc<EngineError>,
    },
}

/// What happened to a page of the cache. A later request that begins with the tokens of a page and of all pages in front of it need not
/// run them again; whoever divides requests over several engines wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageChange {
    /// A page holds [`PAGE_TOKENS`](dualgrain_device::PAGE_TOKENS) tokens of a sequence. Other pages may hold the same ones.
    Filled {
        /// The page.
        page: u32,
        /// The page in front of it in the sequence, which was told of before; `None` for the first.
        parent: Option<u32>,
        /// Its tokens.
        tokens: Vec<u32>,
    },
    /// A page that was told of holds its tokens no more.
    Forgotten {
        /// The page.
        page: u32,
    },
}

/// What a step did.
#[derive(Debug, Default)]
pub struct StepReport {
    /// What happened, in the order of the sequences.
    pub events: Vec<Event>,
    /// Tokens of prompts that were run (and of sequences whose pages had been taken).
    pub prompt_tokens: usize,
    /// Tokens that were chosen.
    pub sampled_tokens: usize,
    /// Tokens that were run, of prompts and others, by sequence. Those of a step that was begun ahead count where it was begun.
    pub computed: Vec<(SequenceId, usize)>,
    /// Sequences that began to run, for the first time or again.
    pub num_begun: usize,
    /// Those sequences, each with how many of its tokens it found in the cache.
    pub begun: Vec<(SequenceId, usize)>,
    /// Sequences whose pages were taken, because they ran short; these sequences wait again.
    pub num_preempted: usize,
    /// What happened to pages up to the end of the step, in order; nothing without [`Scheduler::watch_pages`](super::Scheduler::watch_pages).
    pub pages: Vec<PageChange>,
}
