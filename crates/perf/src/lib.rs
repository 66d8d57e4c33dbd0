//! Knows what a matrix product costs in time, power and energy before it runs.
//!
//! The path of a figure: a sweep measures configurations and appends a [`Row`] for each to a file; a fit turns the rows into
//! features and learns a model from them; predictions with an interval, choices of a kernel's size and the cost of a whole
//! language model are read off that model. Only measuring needs the device; everything else runs anywhere.
//!
//! The rooms, from the ground up:
//! - `product`, `operands`, `machine`, `roofline`, `small_ops`, `timed_models`, `group_number`, `error`: the words that all rooms speak.
//! - `data`: measured sets and their files. `trees`: a forest and boosting for any table of numbers.
//! - `predict`: a fitted model and its predictions. `learn`: how a model is fitted and judged.
//! - `choose`: the best configuration, and what a choice loses. `cost`: a language model's cost. `report`: pictures of all that.
//! - `measure`: sweeps on a CPU or a GPU.
//!
//! The idea is GPPerf's (arXiv 2411.16954). Where its protocol is unsound (rows repeated on both sides of the split, power
//! sampled after the process had ended) this crate does otherwise, and the code says so.

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
mod timed_models;
mod trees;

pub use data::{
    Cut, Dataset, Manifest, Merged, OLDEST_PROTOCOL, PROTOCOL, QualityFlag, Row, RowWriter, merge,
};
pub use dualgrain_format::K_MAX;
pub use error::PerfError;
pub use learn::{FitOptions, HeldOut, Learner, gpperf, held_out, score};
pub use machine::{Machine, MachineKind};
#[cfg(feature = "cuda")]
pub use measure::{
    CounterComparison, CounterLog, check_energy_counter, samples_beside, small_op_rates, sweep_gpu,
};
pub use measure::{NoEnergy, Rapl, RaplReading, Space, SweepOptions, SweepSummary, Watch, sweep_cpu};
pub use operands::{ArithmeticUnit, OperandTypes};
pub use predict::{
    COVERAGE, FitSummary, Importance, Interval, KernelCall, KernelConfig, Model, Objective, Prediction,
    Score, Scores, feature_names,
};
pub use product::{LONGEST_SIDE, Layout, Product};
pub use roofline::Roofline;
pub use small_ops::{SmallOpPower, SmallOpRates};
pub use timed_models::{DecodeStep, ModelSizes, TimedModel};
