//! A sample of a linear, on which smoothing scales are judged before the weights are quantized.

use dualgrain_device::{DeviceError, Statistics};
use dualgrain_format::{ActivationScheme, LinearScheme};
use serde::{Deserialize, Serialize};

use crate::calibrate::statistics::InputStatistics;
use crate::methods::output_error::output_energy;
use crate::methods::rounding::errors_of;
use crate::transform::activation_error::{activation_nmse, static_scale};
use crate::transform::smoothing::{CANDIDATE_PERCENTILES, Smoothing, divide, multiply_columns};

/// Rows of a linear that are looked at.
const SAMPLE_ROWS: usize = 64;

/// One percentile on one linear, from the same statistics: a sample of rows, rounded to nearest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SweepPoint {
    /// The percentile; 100 is no smoothing.
    pub percentile: f64,
    /// Error of the weights in their scheme.
    pub weight_nmse: f64,
    /// Error of INT8 activations.
    pub activation_nmse: f64,
    /// Channels smoothed.
    pub num_smoothed: usize,
}

/// Some rows of a linear's weights, with what calibration knows about its input; neither is smoothed.
pub struct LinearSample<'a, D: Statistics> {
    device: &'a D,
    statistics: &'a InputStatistics,
    scheme: LinearScheme,
    activations: ActivationScheme,
    /// [rows, K].
    rows: Vec<f32>,
}

impl<'a, D: Statistics> LinearSample<'a, D> {
    /// A sample of `weights` `[N,K]`.
    pub fn new(
        device: &'a D,
        (scheme, activations): (LinearScheme, ActivationScheme),
        statistics: &'a InputStatistics,
        weights: &[f32],
    ) -> Self {
        Self {
            device,
            statistics,
            scheme,
            activations,
            rows: some_rows(weights, statistics.maxima.len()),
        }
    }

    /// Largest magnitude of every input channel `[K]`.
    pub fn maxima(&self) -> &[f32] {
        &self.statistics.maxima
    }

    /// Every candidate percentile, with the scales that `scales` gives for it.
    ///
    /// # Errors
    /// The device failed.
    pub fn sweep(&self, scales: impl Fn(Smoothing) -> Vec<f32>) -> Result<Vec<SweepPoint>, DeviceError> {
        let point = |percentile| {
            let scales = scales(Smoothing::Percentile(percentile));
            Ok(SweepPoint {
                percentile,
                weight_nmse: self.weight_nmse(&scales)?,
                activation_nmse: self.activation_nmse(&scales),
                num_smoothed: num_smoothed(&scales),
            })
        };
        CANDIDATE_PERCENTILES.into_iter().map(point).collect()
    }

    /// Normalized squared error of the output when the rows are smoothed by `scales` and rounded to nearest. The errors
    /// are brought back to the input as it is, which spares a copy of the Gram matrix.
    fn weight_nmse(&self, scales: &[f32]) -> Result<f64, DeviceError> {
        let gram = &self.statistics.gram;
        let mut smoothed = self.rows.clone();
        multiply_columns(&mut smoothed, scales);
        let mut errors = errors_of(self.scheme, &smoothed, scales.len());
        let rows = errors.chunks_exact_mut(scales.len());
        rows.for_each(|errors| divide(errors, scales));
        let energy = output_energy(self.device, gram, &self.rows)?;
        match energy > 0.0 {
            true => Ok(output_energy(self.device, gram, &errors)? / energy),
            false => Ok(0.0),
        }
    }

    /// Normalized squared error of the output when the input is smoothed by `scales` and quantized to INT8.
    pub fn activation_nmse(&self, scales: &[f32]) -> f64 {
        let ta = match self.activations {
            ActivationScheme::PerToken => None,
            ActivationScheme::Static => {
                let mut maxima = self.maxima().to_vec();
                divide(&mut maxima, scales);
                Some(static_scale(&maxima))
            }
        };
        activation_nmse(&self.statistics.samples, &self.rows, scales, ta)
    }
}

/// Channels with a scale other than 1.
pub fn num_smoothed(scales: &[f32]) -> usize {
    scales.iter().filter(|&&scale| scale != 1.0).count()
}

/// At most [`SAMPLE_ROWS`] rows, evenly spaced.
fn some_rows(weights: &[f32], k: usize) -> Vec<f32> {
    let n = weights.len() / k;
    let count = n.min(SAMPLE_ROWS);
    (0..count)
        .flat_map(|i| weights[i * n / count * k..][..k].iter().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampled_rows_are_spaced_over_the_layer() {
        let weights: Vec<f32> = (0..200).flat_map(|row| [row as f32; 2]).collect();
        let rows = some_rows(&weights, 2);
        assert_eq!(rows.len(), 2 * SAMPLE_ROWS);
        assert_eq!((rows[0], rows[2 * (SAMPLE_ROWS - 1)]), (0.0, 196.0));
        assert_eq!(some_rows(&weights[..6], 2), &weights[..6]);
    }
}
