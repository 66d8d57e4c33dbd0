//! What goes to the engine's thread and what comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use dualgrain::Logprobs;
use dualgrain::engine::FinishReason;
use dualgrain::engine::scheduler::TokenRequest;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::request::Wanted;

/// A request under way, beside what the scheduler has of it.
#[derive(Debug)]
pub struct Job {
    /// Tokens that end the answer and belong to it.
    pub last_tokens: Vec<u32>,
    /// Tokens before which the answer may not end.
    pub min_tokens: usize,
    /// Whether nobody asks but Dynamo.
    pub is_probe: bool,
    /// Where its updates go; it is cancelled when nobody listens any more.
    pub updates: mpsc::UnboundedSender<Update>,
    /// When it was submitted.
    pub submitted: Instant,
    open: Arc<AtomicUsize>,
    /// Given back when the request ends.
    _place: OwnedSemaphorePermit,
}

/// What happened to a request.
#[derive(Debug)]
pub enum Update {
    /// A token of its answer.
    Token {
        /// The token.
        token: u32,
        /// Where they were asked for.
        logprobs: Option<Logprobs>,
    },
    /// The answer is complete.
    Ended {
        /// Why.
        reason: FinishReason,
        /// Tokens of its prompt that were in the cache already.
        cached_tokens: usize,
    },
    /// It can not go on.
    Failed(String),
}

impl Job {
    /// What to run, a job that counts in `open` until it is dropped, and where its updates come.
    pub fn new(
        wanted: Wanted,
        place: OwnedSemaphorePermit,
        open: &Arc<AtomicUsize>,
    ) -> (TokenRequest, Self, mpsc::UnboundedReceiver<Update>) {
        let (updates, receiver) = mpsc::unbounded_channel();
        open.fetch_add(1, Ordering::AcqRel);
        let job = Self {
            last_tokens: wanted.last_tokens,
            min_tokens: wanted.min_tokens,
            is_probe: wanted.is_probe,
            updates,
            submitted: Instant::now(),
            open: Arc::clone(open),
            _place: place,
        };
        (wanted.request, job, receiver)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
    }
}
