//! The parts that a model consists of, and that its file holds.

use super::config_index::Catalogue;
use super::estimator::Estimator;
use super::fit_summary::FitReport;
use super::interval_width::Spread;
use crate::machine::Machine;

/// What a model consists of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parts {
    pub machine: Machine,
    pub catalogue: Catalogue,
    pub estimator: Estimator,
    pub time_spread: Spread,
    /// Of power, and of each kernel the scale of energy's intervals.
    pub power_spread: Option<(Spread, Vec<f64>)>,
    pub report: FitReport,
}
