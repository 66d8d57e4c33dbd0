//! What every method of quantizing a linear is given and gives back.

use dualgrain_device::{ActivationScale, Statistics};
use dualgrain_format::{GroupSize, LinearWeights};
use dualgrain_threads::Pool;

use crate::calibrate::statistics::InputStatistics;
use crate::error::QuantError;
use crate::monitor::Meter;

/// A way to give a linear its codes and scales. It sees one linear and what is known of that linear's input; which
/// model, block and run the linear belongs to makes no difference to it.
pub trait Method<D: Statistics> {
    /// Quantizes one linear. Rows are independent, so that a linear may come in slices of its rows.
    ///
    /// # Errors
    /// [`QuantError::Cancelled`]; a number-format error would be a bug here and is passed on.
    fn quantize(
        &self,
        resources: &Resources<'_, D>,
        task: &LinearTask<'_>,
    ) -> Result<(LinearWeights, MethodReport), QuantError>;

    /// Whether codes depend on what the linear reads in calibration.
    fn fits_inputs(&self) -> bool {
        true
    }

    /// Multiply-adds of floats that a linear `[N,K]` takes about; a meter is advanced by as many.
    fn multiply_adds(&self, shape: (usize, usize), group_size: GroupSize) -> u64;
}

/// What a method computes with.
#[derive(Clone, Copy)]
pub struct Resources<'a, D: Statistics> {
    /// Judges errors by Gram matrices.
    pub device: &'a D,
    /// Shares what is computed on the host.
    pub pool: &'a Pool,
    /// Progress and cancellation.
    pub meter: &'a Meter<'a>,
}

/// A float linear and what is known of its input. Smoothing has been applied to both.
#[derive(Debug, Clone, Copy)]
pub struct LinearTask<'a> {
    /// Weights and bias.
    pub rows: FloatRows<'a>,
    /// The input in the quantized model, over the calibration tokens.
    pub statistics: &'a InputStatistics,
    /// Weights along K that share a group scale.
    pub group_size: GroupSize,
    /// How the input becomes INT8: the linear keeps a static scale.
    pub activations: ActivationScale,
}

impl LinearTask<'_> {
    /// The static activation scale; `None` means per-token.
    pub fn ta(&self) -> Option<f32> {
        match self.activations {
            ActivationScale::PerToken => None,
            ActivationScale::Static(ta) => Some(ta),
        }
    }
}

/// The weights of a float linear, or some rows of them.
#[derive(Debug, Clone, Copy)]
pub struct FloatRows<'a> {
    /// Weights `[N,K]`.
    pub weights: &'a [f32],
    /// K.
    pub k: usize,
    /// Bias `[N]`.
    pub bias: Option<&'a [f32]>,
}

/// How well a linear was met.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MethodReport {
    /// Squared error of the linear's output over the calibration tokens, weights only.
    pub error: f64,
    /// Squared output of the original linear.
    pub energy: f64,
    /// How many rows chose each channel ratio of [`dgq`](crate::methods::dgq); empty where no row had a choice.
    pub ratio_histogram: Vec<u32>,
}

impl MethodReport {
    /// Adds the report of further rows of the same linear.
    pub fn add(&mut self, rows: &Self) {
        self.error += rows.error;
        self.energy += rows.energy;
        let len = self.ratio_histogram.len().max(rows.ratio_histogram.len());
        self.ratio_histogram.resize(len, 0);
        for (sum, count) in self.ratio_histogram.iter_mut().zip(&rows.ratio_histogram) {
            *sum += count;
        }
    }

    /// Normalized mean squared error; 0 for a linear that puts nothing out.
    pub fn nmse(&self) -> f64 {
        if self.energy > 0.0 {
            self.error / self.energy
        } else {
            0.0
        }
    }
}
