//! The header of a model file: everything but the trees, as JSON.

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::predict::config_index::ConfigIndex;
use crate::predict::fit_summary::FitSummary;
use crate::predict::physics::{PowerFactors, TimeFactors};

#[derive(Serialize, Deserialize)]
pub(crate) struct Header {
    /// Names of the features, in order: a program that computes others must not read the trees.
    pub(crate) features: Vec<String>,
    pub(crate) machine: Machine,
    #[serde(rename = "catalogue")]
    pub(crate) config_index: ConfigIndex,
    pub(crate) factors: Vec<TimeFactors>,
    pub(crate) trees_of: Vec<usize>,
    pub(crate) power_factors: Vec<PowerFactors>,
    pub(crate) gains: [Vec<f64>; 2],
    /// Time's ensembles come first, then its spread, then power and its spread where there are any.
    pub(crate) num_time: usize,
    pub(crate) has_power: bool,
    /// Of intervals, for each kernel.
    pub(crate) time_scales: Vec<f64>,
    pub(crate) power_scales: Vec<f64>,
    pub(crate) energy_scales: Vec<f64>,
    pub(crate) report: FitSummary,
    pub(crate) ensembles: Vec<EnsembleShape>,
}

/// What is to be known of an ensemble before its bytes are read.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EnsembleShape {
    Forest {
        start: f32,
        /// Nodes of each tree.
        sizes: Vec<u16>,
    },
    Boost {
        start: f32,
        trees: usize,
    },
}

/// Whether the header has as many of everything as there are kernels, configurations and trees, all of them numbers.
pub(crate) fn is_consistent(header: &Header, num_trees: usize) -> bool {
    let num_power = if header.has_power { 2 } else { 0 };
    let num_kernels = header.config_index.kernels.len();
    let num_with_power = if header.has_power { num_kernels } else { 0 };
    let scales = |scales: &[f64], count: usize| {
        scales.len() == count && scales.iter().all(|scale| scale.is_finite() && *scale > 0.0)
    };
    num_trees == header.num_time.saturating_add(1 + num_power)
        && header.factors.len() == header.config_index.configs.len()
        && header.trees_of.len() == num_kernels
        && header.trees_of.iter().all(|&at| at < header.num_time)
        && header.factors.iter().flatten().all(|factor| factor.is_finite())
        && header.power_factors.len() == num_with_power
        && header
            .power_factors
            .iter()
            .flatten()
            .all(|factor| factor.is_finite())
        && scales(&header.time_scales, num_kernels)
        && scales(&header.power_scales, num_with_power)
        && scales(&header.energy_scales, num_with_power)
}
