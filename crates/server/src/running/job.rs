//! What goes to the engine's thread and what comes back.

use std::sync::Arc;

use dualgrain::{FinishReason, Logprobs, Request};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::account::Account;

/// What the engine's thread is told.
#[derive(Debug)]
pub enum Command {
    /// Run these.
    Run(Job),
    /// End every job with an error and stop.
    Stop,
}

/// Sequences that were asked for together. It is cancelled by dropping the receiver of its updates.
#[derive(Debug)]
pub struct Job {
    /// A request for each choice. Equal prompts stand side by side.
    pub requests: Vec<Request>,
    /// Where the updates go.
    pub updates: mpsc::Sender<Update>,
    /// What is noted of it.
    pub account: Arc<Account>,
    /// Its places in the queue, given back when it ends.
    #[expect(dead_code, reason = "held to be dropped with the job")]
    pub place: OwnedSemaphorePermit,
}

/// What happened to a choice of a job.
#[derive(Debug)]
pub struct Update {
    /// Index of the choice.
    pub choice: usize,
    /// What happened.
    pub news: News,
}

/// What happened to a choice.
#[derive(Debug)]
pub enum News {
    /// A token came that has text or log-probabilities to show.
    Token {
        /// The token.
        token: u32,
        /// Text that follows what was given out before, maybe empty.
        text: String,
        /// Where they were asked for.
        logprobs: Option<Logprobs>,
    },
    /// The choice is complete.
    Finished {
        /// Text that was held back until the end.
        rest: String,
        /// How it ended.
        end: End,
    },
    /// The choice can not go on, and neither can its job.
    Failed {
        /// Why, for a person.
        message: String,
        /// Whether the server is going down rather than at fault.
        stopping: bool,
    },
}

/// How a choice ended.
#[derive(Debug, Clone)]
pub struct End {
    /// Why.
    pub reason: FinishReason,
    /// All its tokens, without an end token.
    pub tokens: Vec<u32>,
    /// Tokens of its prompt that were in the cache already.
    pub cached_tokens: usize,
}
