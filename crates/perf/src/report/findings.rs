//! What a report is made from.

use crate::data::Dataset;
use crate::learn::HeldOut;
use crate::machine::Machine;
use crate::predict::FitSummary;
use crate::report::sections::Choice;

/// What a page is made of; what is absent is said to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Findings<'a> {
    /// Measurements.
    pub data: Option<&'a Dataset>,
    /// The machine, where there are no measurements to tell.
    pub machine: Option<&'a Machine>,
    /// Predictions of rows of `data`, each by a model that never saw the row's shape.
    pub held_out: &'a [HeldOut],
    /// How the fitted model came about and what it leans on.
    pub fit: Option<&'a FitSummary>,
    /// What was lost by choosing by prediction, on shapes the model never saw.
    pub choices: &'a [Choice],
}
