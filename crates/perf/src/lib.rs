//! What matrix products cost: measured, learned, predicted, chosen by.
//!
//! The path of a figure: a `profile` measures configurations and appends a [`Row`] for each to a [`Dataset`]'s file, a
//! fit turns rows into features and features into a model with an error bar, and predictions, selection tables and the
//! cost of a whole language model are read off that model. Only measuring needs the device; the rest runs anywhere.
//!
//! Source of the idea: GPPerf (arXiv 2411.16954); where its protocol is unsound (rows repeated across the split, power
//! sampled after the process had ended) this crate does otherwise and says so beside the code.

#![forbid(unsafe_code)]

pub mod choose;
pub mod cost;
mod data;
mod error;
mod learn;
mod machine;
mod measure;
mod predict;
mod product;
pub mod report;
mod roofline;
mod small_ops;
mod trees;

pub use data::{Cut, Dataset, Layout, Mark, Merged, Row, RowWriter, merge};
pub use error::PerfError;
pub use learn::{FitReport, HeldOut, Importance, Scores, feature_names, gpperf, held_out, score};
pub use machine::{Machine, MachineKind, Manifest, OLDEST_PROTOCOL, PROTOCOL};
#[cfg(feature = "cuda")]
pub use measure::{EnergyTruth, check_energy, profile_gpu};
pub use measure::{ProfileOptions, ProfileSummary, Space, Watch, profile_cpu};
pub use predict::{By, COVERAGE, FitOptions, Interval, Learner, Model, Prediction, Score};
pub use product::{ConfigFacts, LONGEST_SIDE, Operands, Product, Query, Unit};
pub use roofline::Work;
pub use small_ops::SmallOpRates;
