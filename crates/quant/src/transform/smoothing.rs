//! Smoothing: activation outliers are divided away where they are made and multiplied into the weights that read them.
//!
//! For each input channel j of a linear a scale `s_j`; the producer's output j is divided by it, the consumer's column
//! j multiplied: the model computes the same function, and INT8 activations lose less. DGQ, arXiv 2310.04836 (percentile);
//! SmoothQuant, arXiv 2211.10438 (alpha).
//!
//! Statistics follow without another pass over the data: abs-maxima become `a_j / s_j`, the Gram matrix
//! `H_ij / (s_i s_j)`.

use dualgrain_device::Gram;
use dualgrain_engine::Role;
use serde::{Deserialize, Serialize};

use crate::calibrate::statistics::InputStatistics;

/// How the scales are found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Smoothing {
    /// All scales are 1.
    Off,
    /// Percentile smoothing at the paper's 99.5 %, or at a lower one of `CANDIDATE_PERCENTILES` for a linear where that
    /// clearly lowers the error of weights and activations together (on a sample of its rows and inputs): a layer with
    /// more outliers than the percentile expects.
    Auto,
    /// Channels above the percentile (0..=100) of all channels' abs-maxima are brought down to it; 100 is off.
    Percentile(f64),
    /// `s_j = a_j^alpha / w_j^(1 - alpha)`, with w_j the largest weight of column j.
    Alpha(f64),
}

impl std::fmt::Display for Smoothing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Off => write!(f, "off"),
            Self::Auto => write!(f, "percentile auto"),
            Self::Percentile(percentile) => write!(f, "percentile {percentile}"),
            Self::Alpha(alpha) => write!(f, "alpha {alpha}"),
        }
    }
}

/// The percentiles that are tried; 100 is no smoothing.
pub const CANDIDATE_PERCENTILES: [f64; 5] = [100.0, 99.9, 99.5, 99.0, 98.0];

/// The paper's percentile.
pub const PAPER_PERCENTILE: f64 = 99.5;

/// Which producer-consumer pairs are smoothed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmoothPairs {
    /// The norm before attention and q, k, v.
    pub norm_qkv: bool,
    /// The norm before the feed-forward and gate, up (or fc1).
    pub norm_up: bool,
    /// Rows of up (or of fc1 before a ReLU) and columns of down (fc2).
    pub up_down: bool,
    /// Rows of v and columns of the attention's output projection.
    pub v_out: bool,
}

impl Default for SmoothPairs {
    fn default() -> Self {
        Self {
            norm_qkv: true,
            norm_up: true,
            up_down: true,
            v_out: false,
        }
    }
}

impl SmoothPairs {
    /// Whether the input of `role` is smoothed.
    pub fn cover(&self, role: Role) -> bool {
        match role {
            Role::Qkv => self.norm_qkv,
            Role::Out => self.v_out,
            Role::Up => self.norm_up,
            Role::Down => self.up_down,
        }
    }
}

/// Largest scale: beyond it a producer's other values would drown in its own rounding.
const LARGEST_SCALE: f32 = 65_536.0;

impl Smoothing {
    /// The scales of a linear's input channels from their abs-maxima over the calibration tokens and the largest
    /// weight of each column; [`Self::Auto`] stands for the paper's percentile until one has been chosen.
    pub fn scales(&self, maxima: &[f32], weight_maxima: &[f32]) -> Vec<f32> {
        match *self {
            Self::Off => vec![1.0; maxima.len()],
            Self::Auto => percentile_scales(maxima, PAPER_PERCENTILE),
            Self::Percentile(percentile) => percentile_scales(maxima, percentile),
            Self::Alpha(alpha) => alpha_scales(maxima, weight_maxima, alpha as f32),
        }
    }
}

/// The baseline of percentile smoothing: the value ranked `int((1 - percentile/100) * C + 1.5)` from the top, the
/// largest being 1; `None` when there is none to divide by.
pub fn baseline(maxima: &[f32], percentile: f64) -> Option<f32> {
    let mut sorted = maxima.to_vec();
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    let rank = ((1.0 - percentile / 100.0) * maxima.len() as f64 + 1.5) as usize;
    let value = *sorted.get(rank.clamp(1, maxima.len().max(1)) - 1)?;
    (value.is_finite() && value > 0.0).then_some(value)
}

fn percentile_scales(maxima: &[f32], percentile: f64) -> Vec<f32> {
    let Some(baseline) = baseline(maxima, percentile) else {
        return vec![1.0; maxima.len()];
    };
    let scale = |&max: &f32| {
        if max > baseline {
            bounded(max / baseline)
        } else {
            1.0
        }
    };
    maxima.iter().map(scale).collect()
}

fn alpha_scales(maxima: &[f32], weight_maxima: &[f32], alpha: f32) -> Vec<f32> {
    let scale = |(&max, &weight): (&f32, &f32)| {
        if max > 0.0 && weight > 0.0 {
            bounded(max.powf(alpha) / weight.powf(1.0 - alpha))
        } else {
            1.0
        }
    };
    maxima.iter().zip(weight_maxima).map(scale).collect()
}

fn bounded(scale: f32) -> f32 {
    if scale.is_finite() {
        scale.clamp(1.0 / LARGEST_SCALE, LARGEST_SCALE)
    } else {
        1.0
    }
}

/// The statistics of the smoothed input, from those of the input.
pub fn smooth_statistics(statistics: &mut InputStatistics, scales: &[f32]) {
    smooth_gram(&mut statistics.gram, scales);
    divide(&mut statistics.maxima, scales);
    let samples = statistics.samples.chunks_exact_mut(scales.len());
    samples.for_each(|sample| divide(sample, scales));
}

/// `H_ij / (s_i s_j)`: the Gram matrix (lower triangle) of the smoothed input.
pub fn smooth_gram(gram: &mut Gram, scales: &[f32]) {
    let inverse: Vec<f32> = scales.iter().map(|s| 1.0 / s).collect();
    let k = gram.k();
    for (row, (values, &own)) in gram.values_mut().chunks_exact_mut(k).zip(&inverse).enumerate() {
        for (value, &other) in values[..=row].iter_mut().zip(&inverse) {
            *value *= own * other;
        }
    }
}

/// `W[n,j] *= s_j`: the consumer's side.
pub fn multiply_columns(weights: &mut [f32], scales: &[f32]) {
    for row in weights.chunks_exact_mut(scales.len()) {
        row.iter_mut()
            .zip(scales)
            .for_each(|(weight, scale)| *weight *= scale);
    }
}

/// `values[j] /= s_j`: the producer's side (a norm's weight or bias, statistics, the channel scales of rows).
pub fn divide(values: &mut [f32], scales: &[f32]) {
    values
        .iter_mut()
        .zip(scales)
        .for_each(|(value, scale)| *value /= scale);
}

/// Largest magnitude of every column of `weights` `[N,K]`; `[K]`.
pub fn column_maxima(weights: &[f32], k: usize) -> Vec<f32> {
    let mut maxima = vec![0.0_f32; k];
    for row in weights.chunks_exact(k) {
        maxima
            .iter_mut()
            .zip(row)
            .for_each(|(max, w)| *max = max.max(w.abs()));
    }
    maxima
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_baseline_is_ranked_as_in_the_paper() {
        let maxima: Vec<f32> = (1..=256).map(|v| v as f32).collect();
        // int(0.005 * 256 + 1.5) = 2: the second largest.
        assert_eq!(baseline(&maxima, 99.5), Some(255.0));
        assert_eq!(baseline(&maxima, 100.0), Some(256.0));
        assert_eq!(baseline(&maxima, 0.0), Some(1.0));
        assert_eq!(baseline(&[], 99.5), None);
    }

    #[test]
    fn only_channels_above_the_baseline_are_smoothed() {
        let mut maxima = vec![2.0; 256];
        maxima[7] = 64.0;
        let scales = Smoothing::Percentile(99.5).scales(&maxima, &[]);
        assert_eq!(scales[7], 32.0);
        assert!(scales.iter().enumerate().all(|(j, &s)| j == 7 || s == 1.0));
        let off = Smoothing::Percentile(100.0).scales(&maxima, &[]);
        assert_eq!(off, Smoothing::Off.scales(&maxima, &[]));
    }

    #[test]
    fn a_baseline_of_zero_or_infinity_smooths_nothing() {
        let mut sparse = vec![0.0; 256];
        sparse[0] = 5.0;
        assert_eq!(Smoothing::Percentile(99.5).scales(&sparse, &[]), vec![1.0; 256]);
        let broken = vec![f32::INFINITY; 256];
        assert_eq!(Smoothing::Percentile(99.5).scales(&broken, &[]), vec![1.0; 256]);
        assert_eq!(Smoothing::Alpha(0.5).scales(&[0.0, 4.0], &[1.0, 0.0]), [1.0, 1.0]);
    }

    #[test]
    fn both_sides_cancel_in_the_product() {
        let (x, scales) = ([3.0_f32, -20.0, 0.5], [1.0_f32, 8.0, 2.0]);
        let mut weights = [0.5_f32, -0.25, 1.0, 2.0, 0.75, -1.5];
        let product = |w: &[f32], x: &[f32]| -> Vec<f32> {
            w.chunks_exact(3)
                .map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum())
                .collect()
        };
        let before = product(&weights, &x);
        let mut smoothed = x;
        divide(&mut smoothed, &scales);
        multiply_columns(&mut weights, &scales);
        assert_eq!(product(&weights, &smoothed), before);
        let mut gram = Gram::new(3);
        let outer = |x: &[f32; 3], gram: &mut Gram| {
            for i in 0..3 {
                for j in 0..=i {
                    gram.values_mut()[3 * i + j] = x[i] * x[j];
                }
            }
        };
        outer(&x, &mut gram);
        smooth_gram(&mut gram, &scales);
        let mut expected = Gram::new(3);
        outer(&smoothed, &mut expected);
        assert_eq!(gram.values(), expected.values());
    }
}
