//! What matrix products cost: measured, learned, predicted, chosen by.
//!
//! The path of a figure: a `profile` measures configurations and appends a [`Row`] for each to a [`Dataset`]'s file, a
//! fit turns rows into features and features into a model with an error bar, and predictions, selection tables and the
//! cost of a whole language model are read off that model. Only measuring needs the device; the rest runs anywhere.
//!
//! Source of the idea: GPPerf (arXiv 2411.16954); where its protocol is unsound (rows repeated across the split, power
//! sampled after the process had ended) this crate does otherwise and says so beside the code.

#![forbid(unsafe_code)]

mod alike;
mod base;
mod catalogue;
pub mod cost;
mod dataset;
mod error;
mod estimator;
mod features;
mod fit;
mod importance;
mod learn;
mod machine;
mod metric;
mod model;
mod model_file;
pub mod paper;
pub mod plot;
mod power;
mod prediction;
mod profile;
mod query;
pub mod report;
mod row;
pub mod select;
#[cfg(feature = "cuda")]
pub mod selection;
mod small_ops;
mod spread;
mod work;

pub use dataset::{Dataset, RowWriter};
pub use error::PerfError;
pub use estimator::{FitOptions, Learner};
pub use fit::{FitReport, HeldOut, Importance, Scores, feature_names, held_out, score};
pub use machine::{Machine, MachineKind, Manifest, OLDEST_PROTOCOL, PROTOCOL};
pub use metric::Score;
pub use model::Model;
pub use prediction::{By, COVERAGE, Interval, Prediction};
#[cfg(feature = "cuda")]
pub use profile::{EnergyTruth, check_energy, profile_gpu};
pub use profile::{Merged, ProfileOptions, ProfileSummary, Space, Watch, merge, profile_cpu};
pub use query::{ConfigFacts, LONGEST_SIDE, Operands, Product, Query, Unit};
pub use row::{Cut, Layout, Mark, Row};
pub use small_ops::SmallOpRates;
pub use work::Work;
