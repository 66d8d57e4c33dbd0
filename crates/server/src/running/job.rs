//! What goes to the engine's thread and what comes back.

use std::sync::Arc;
use std::time::Instant;

use dualgrain::{FinishReason, Logprobs, Request};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::account::Account;
use super::cancellation::Cancelled;
use super::flow::HeldTokens;
use super::waiting::Rank;

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
    /// Whose it is and how long it may take.
    pub terms: Terms,
    /// Tokens of its prompts, of which each is given back when its first sequence is let in.
    pub tokens: HeldTokens,
    /// Its places in the queue, given back when it ends.
    #[expect(dead_code, reason = "held to be dropped with the job")]
    pub place: OwnedSemaphorePermit,
}

/// Whose a job is, when it is its turn and how long it may take.
#[derive(Debug, Clone)]
pub struct Terms {
    /// What is noted of it.
    pub account: Arc<Account>,
    /// Where it waits.
    pub rank: Rank,
    /// When it ends, wherever it stands.
    pub deadline: Option<Instant>,
    /// Whether another request has ended it.
    pub cancelled: Cancelled,
}

/// Whose fault it is that a job can not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The engine's or the request's.
    Engine,
    /// Nobody's: the server is going down.
    Stopping,
    /// Nobody's: its time is over.
    Late,
    /// Nobody's: another request has ended it.
    Cancelled,
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
        /// Whose fault it is.
        fault: Fault,
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
    /// Its share of the joules of every step that it took part in; `None` where nothing measures them.
    pub energy_j: Option<f64>,
}
