//! How good a model is: perplexity on a text, divergence from the model it was made from, tasks with right answers.
//!
//! All sums run in f64 and in the order of the text, so the same text gives the same numbers on any number of threads.
//! Standard errors treat predictions (items, in tasks) as independent: the sample deviation by the root of
//! their number. Neighbouring predictions of one text are not quite, so take them as a lower bound.

mod distribution;
mod divergence;
mod error;
mod item_score;
mod moments;
mod options;
mod perplexity;
mod scoring;
mod task_file;
mod tasks;
mod text_file;
mod windows;
mod worst_tokens;

pub use distribution::{Percentiles, PositionMean};
pub use divergence::{DivergenceReport, divergence, kl_divergence};
pub use error::EvaluateError;
pub use item_score::{ItemScore, OptionScore};
pub use perplexity::{PerplexityReport, perplexity};
pub use scoring::{Progress, ScoredRows, ScoredStep, Scorer, argmax, log_probability};
pub use task_file::{Task, TaskForm, TaskItem};
pub use tasks::{TaskReport, score_task};
pub use windows::{DEFAULT_CONTEXT, Windows};
pub use worst_tokens::{Guess, WorstToken};
