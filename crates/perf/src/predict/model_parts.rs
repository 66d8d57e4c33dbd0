//! The parts that a model consists of, and that its file holds.

use super::config_index::ConfigIndex;
use super::estimator::Estimator;
use super::fit_summary::FitSummary;
use super::interval_width::WidthModel;
use crate::machine::Machine;

/// The parts of a model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ModelParts {
    pub machine: Machine,
    pub config_index: ConfigIndex,
    pub estimator: Estimator,
    pub time_width: WidthModel,
    /// The widths of power, and of each kernel the scale of energy's intervals; `None` without measured power.
    pub power_width: Option<(WidthModel, Vec<f64>)>,
    pub fit_summary: FitSummary,
}
