//! The engine's thread and the two channels to it: jobs go in, updates come out. Nothing here knows of HTTP.

mod account;
mod cancellation;
mod flow;
mod job;
mod metrics;
mod progress;
mod queue;
mod runner;
mod waiting;

pub use account::Account;
#[cfg(feature = "otel")]
pub use account::Notes;
pub use cancellation::{Cancellable, Cancellations};
pub use job::{End, Fault, News, Terms, Update};
pub use metrics::Metrics;
pub use progress::{Health, Progress};
pub use queue::{Place, Queue, QueueLimits, Unsubmitted};
pub use waiting::Rank;
