//! The figures of one load, and one sample of the power.

use std::time::Instant;

use serde::Serialize;

/// One load's figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CounterComparison {
    /// What ran.
    pub load: String,
    /// Length of the long region.
    pub region_s: f64,
    /// By the counter.
    pub counter_j: f64,
    /// By samples of the momentary power, if the driver has it.
    pub instant_j: Option<f64>,
    /// By samples of the averaged power.
    pub average_j: f64,
    /// Samples.
    pub samples: usize,
    /// Power of each short region, as rows have it.
    pub repeated_w: Vec<f64>,
    /// Energy of a product in each of them.
    pub repeated_j: Vec<f64>,
    /// Length of a short region.
    pub window_s: f64,
}

impl CounterComparison {
    /// Counter over samples, less 1.
    pub fn deviation(&self) -> f64 {
        self.counter_j / self.instant_j.unwrap_or(self.average_j) - 1.0
    }

    /// Largest over least energy of the repetitions, less 1.
    pub fn spread(&self) -> f64 {
        let most = self.repeated_j.iter().copied().fold(0.0, f64::max);
        let least = self.repeated_j.iter().copied().fold(f64::INFINITY, f64::min);
        most / least - 1.0
    }
}

/// What a card said of its power at a moment.
pub(crate) struct PowerSample {
    pub(crate) at: Instant,
    pub(crate) instant_w: Option<f64>,
    pub(crate) average_w: f64,
}
