//! What matrix products cost: measured, learned, predicted, chosen by.
//!
//! The path of a figure: a `profile` measures configurations and appends a [`Row`] for each to a [`Dataset`]'s file, a
//! fit turns rows into features and features into a model with an error bar, and predictions, selection tables and the
//! cost of a whole language model are read off that model. Only measuring needs the device; the rest runs anywhere.
//!
//! Source of the idea: GPPerf (arXiv 2411.16954); where its protocol is unsound (rows repeated across the split, power
//! sampled after the process had ended) this crate does otherwise and says so beside the code.

#![forbid(unsafe_code)]

pub mod cost;
mod dataset;
mod error;
mod machine;
mod model;
pub mod plot;
mod prediction;
mod query;
mod row;
mod work;

pub use dataset::{Dataset, RowWriter};
pub use error::PerfError;
pub use machine::{Machine, MachineKind, Manifest, PROTOCOL};
pub use model::Model;
pub use prediction::{By, COVERAGE, Interval, Prediction};
pub use query::{ConfigFacts, Operands, Product, Query, Unit};
pub use row::{Cut, Layout, Mark, Row};
pub use work::Work;
