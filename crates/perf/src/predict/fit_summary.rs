//! How a model was fitted and how good it is. The summary is kept in the model file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::score::Score;

/// Scores by split (`shape`, `random`) and target (`runtime`, `power`, `energy`, `throughput`, `throughput_per_watt`).
pub type Scores = BTreeMap<String, BTreeMap<String, Score>>;

/// How a model came about and how good it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FitSummary {
    /// Rows learned from.
    pub num_rows: usize,
    /// Those of them with power.
    pub num_power_rows: usize,
    /// Distinct shapes.
    pub num_shapes: usize,
    /// `boost` or `forest`.
    pub learner: String,
    /// Mean error of runtime's logarithm where no tree of a forest had seen the shape; none of boosting.
    pub out_of_bag_error: Option<f64>,
    /// Seed of everything random.
    pub seed: u64,
    /// Day of the first row.
    pub date: String,
    /// `git describe` of the program that measured.
    pub measured_by: String,
    /// Agreement with measurements.
    pub scores: Scores,
    /// What matters, by target.
    pub importances: BTreeMap<String, Vec<Importance>>,
}

/// How much a feature matters to a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Importance {
    /// Its name.
    pub feature: String,
    /// Share of the squared error that splits on it took away.
    pub gain: f64,
    /// How much the mean error (of the logarithm) on unseen shapes grows when its values are swapped between rows.
    pub permutation: f64,
}
