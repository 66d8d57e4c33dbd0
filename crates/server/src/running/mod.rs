//! The engine's thread and the two channels to it: jobs go in, updates come out. Nothing here knows of HTTP.

mod account;
mod job;
mod metrics;
mod progress;
mod queue;
mod runner;

pub use account::Account;
pub use job::{End, News, Update};
pub use metrics::Metrics;
pub use progress::{Health, Progress};
pub use queue::{Place, Queue, QueueLimits};
