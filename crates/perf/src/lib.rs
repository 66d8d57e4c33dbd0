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
pub mod group_number;
mod learn;
mod machine;
mod measure;
mod operands;
mod predict;
mod product;
pub mod report;
mod roofline;
mod small_ops;
mod trees;

pub use data::{
    Cut, Dataset, Manifest, Merged, OLDEST_PROTOCOL, PROTOCOL, QualityFlag, Row, RowWriter, merge,
};
pub use error::PerfError;
pub use learn::{FitOptions, HeldOut, Learner, gpperf, held_out, score};
pub use machine::{Machine, MachineKind};
#[cfg(feature = "cuda")]
pub use measure::{CounterComparison, check_energy_counter, sweep_gpu};
pub use measure::{Space, SweepOptions, SweepSummary, Watch, sweep_cpu};
pub use operands::{ArithmeticUnit, OperandTypes};
pub use predict::{
    COVERAGE, FitSummary, Importance, Interval, KernelCall, KernelConfig, Model, Objective, Prediction,
    Score, Scores, feature_names,
};
pub use product::{LONGEST_SIDE, Layout, Product};
pub use roofline::Roofline;
pub use small_ops::SmallOpRates;
