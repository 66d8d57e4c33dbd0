//! Predicts the logarithms of time and power: the rough value by physics, times what the trees say of its error.

use super::config_index::ConfigIndex;
use super::features::{FeatureRow, add_time_features, time_features};
use crate::machine::Machine;
use crate::predict::physics::{Physics, PowerFactors, TimeFactors, rates, rough_power_w, rough_time_s};
use crate::product::Product;
use crate::trees::Ensemble;

/// What was learned of one machine.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Estimator {
    /// Of each configuration: factors of the rough time.
    pub factors: Vec<TimeFactors>,
    /// Trees for `ln(time / rough time)`, each for some kernels.
    pub time: Vec<Ensemble>,
    /// Of each kernel: the place of its trees in `time`.
    pub trees_of: Vec<usize>,
    /// Of each kernel: factors of the rough power; empty without measured power.
    pub power_factors: Vec<PowerFactors>,
    /// Trees for `ln(power / rough power)`.
    pub power: Option<Ensemble>,
    /// Gains of the features for time and for power.
    pub gains: [Vec<f64>; 2],
    /// Of forests: sum and number of the errors of the logarithm of time, on shapes that a tree had not seen.
    pub out_of_bag: (f64, usize),
}

/// An estimate of time and power, with the features that led to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Estimate {
    /// Logarithm of the seconds.
    pub log_time: f64,
    /// Logarithm of the watts.
    pub log_power: Option<f64>,
    /// All features, those that follow from the time included.
    pub features: FeatureRow,
}

impl Estimator {
    /// The place in `time` of the trees of a configuration.
    pub(crate) fn trees_of_config(&self, config_index: &ConfigIndex, config: usize) -> usize {
        self.trees_of[config_index.kernel_of[config]]
    }

    /// Forgets the power. Where the folds had too few rows with power to judge it, its intervals have no width.
    pub(crate) fn forget_power(&mut self) {
        self.power = None;
        self.power_factors.clear();
    }

    /// The features of a product in a configuration that time is predicted from, and its rough time.
    pub(crate) fn features(
        &self,
        config_index: &ConfigIndex,
        config: usize,
        product: &Product<'_>,
        physics: &Physics,
        machine: &Machine,
    ) -> (FeatureRow, f64) {
        let rough_s = rough_time_s(&self.factors[config], &physics.terms);
        let facts = &config_index.configs[config];
        let kernel = config_index.kernel_of[config];
        let operand_types = &config_index.operand_types[kernel];
        let row = time_features(
            facts,
            (product, operand_types),
            physics,
            machine,
            (kernel, rough_s),
        );
        (row, rough_s)
    }

    /// Estimates time and power of a product in a configuration.
    pub fn estimate(
        &self,
        config_index: &ConfigIndex,
        config: usize,
        product: &Product<'_>,
        physics: &Physics,
        machine: &Machine,
    ) -> Estimate {
        let (mut row, rough_s) = self.features(config_index, config, product, physics, machine);
        let trees = &self.time[self.trees_of_config(config_index, config)];
        let log_time = rough_s.ln() + f64::from(trees.sum(&row));
        let log_power = self.power.as_ref().map(|trees| {
            let time_s = log_time.exp();
            let factors = &self.power_factors[config_index.kernel_of[config]];
            let rough_w = rough_power_w(factors, &rates(physics, time_s), machine);
            add_time_features(&mut row, physics, time_s, rough_w);
            rough_w.ln() + f64::from(trees.sum(&row))
        });
        Estimate {
            log_time,
            log_power,
            features: row,
        }
    }
}
