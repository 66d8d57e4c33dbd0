//! What happened to every linear: errors, outliers, scales. JSON beside the model; `page.rs` makes the picture.

use dualgrain_engine::Role;
use dualgrain_format::{GroupSize, QuantizedLinear};
use dualgrain_kernels::Backend;
use serde::{Deserialize, Serialize};

use crate::QuantOptions;
use crate::activation::Probe;
use crate::linear::{FloatRows, LinearFit, round_to_nearest_error};
use crate::smooth::Smoothing;
use crate::stream::InputStats;

/// Percentiles of the sweep; 100 is no smoothing.
pub const SWEEP_PERCENTILES: [f64; 5] = [98.0, 99.0, 99.5, 99.9, 100.0];

/// Rows of a linear that the sweep and the activation error look at.
const PROBE_ROWS: usize = 64;

/// A channel this many times louder than the median channel is an outlier.
const OUTLIER_RATIO: f32 = 6.0;

/// Smallest normal fp16 number: below it a folded scale `s1 * s2` loses digits.
const F16_MIN_NORMAL: f32 = 6.103_515_6e-5;

/// Largest fp16 number.
const F16_MAX: f32 = 65_504.0;

/// The report of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuantReport {
    /// The options, by name.
    pub options: Vec<(String, String)>,
    /// Calibration windows used.
    pub num_windows: usize,
    /// Tokens in each.
    pub window_tokens: usize,
    /// What a user should know about the calibration text.
    pub notice: Option<String>,
    /// Every linear, in order of execution.
    pub linears: Vec<LinearReport>,
}

/// The report of one linear.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinearReport {
    /// The block.
    pub layer: usize,
    /// `qkv`, `out`, `up` or `down`.
    pub role: String,
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// Squared error of the output over the calibration tokens by the squared output: 4-bit weights alone.
    pub weight_nmse: f64,
    /// The same for INT8 activations alone, on a sample of tokens and rows.
    pub activation_nmse: f64,
    /// Input channels more than six times as loud as the median channel.
    pub num_outliers: usize,
    /// The loudest channel by the median channel.
    pub outlier_ratio: f32,
    /// Input channels that were silent during calibration.
    pub num_dead: usize,
    /// Largest smoothing scale; 1 without smoothing.
    pub largest_smoothing: f32,
    /// Channels with a smoothing scale other than 1.
    pub num_smoothed: usize,
    /// Rows by the ratio phase 2 chose (index 0 is 1.00975, index 79 is 0.20); empty without phase 2.
    pub ratio_histogram: Vec<u32>,
    /// Scales `s1 * s2` that fp16 cannot hold with all its digits; 0 means the layer can be exported folded.
    pub num_scales_outside_f16: usize,
    /// Whether the group size divides K, as some importers ask.
    pub group_divides_k: bool,
    /// What other percentiles would have given.
    pub sweep: Vec<SweepPoint>,
}

/// One percentile on one linear, from the same statistics: a sample of rows, rounded to nearest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SweepPoint {
    /// The percentile; 100 is no smoothing.
    pub percentile: f64,
    /// Error of 4-bit weights.
    pub weight_nmse: f64,
    /// Error of INT8 activations.
    pub activation_nmse: f64,
    /// Channels smoothed.
    pub num_smoothed: usize,
}

impl LinearReport {
    /// What can be said before the search: outliers, smoothing, activations, the sweep. `weights` and statistics are
    /// those before smoothing.
    pub fn of_input<B: Backend>(
        backend: &B,
        options: &QuantOptions,
        stats: &InputStats,
        weights: &[f32],
        scales: &[f32],
    ) -> Self {
        let k = scales.len();
        let rows = some_rows(weights, k);
        let probe = Probe {
            samples: &stats.samples,
            maxima: &stats.maxima,
            weights: &rows,
            scheme: options.activations,
        };
        let sweep = SWEEP_PERCENTILES.map(|percentile| {
            let scales = Smoothing::Percentile(percentile).scales(&stats.maxima, &[]);
            let layer = FloatRows {
                weights: &rows,
                k,
                bias: None,
            };
            SweepPoint {
                percentile,
                weight_nmse: round_to_nearest_error(backend, layer, &stats.gram, &scales, options.group_size),
                activation_nmse: probe.nmse(&scales),
                num_smoothed: num_smoothed(&scales),
            }
        });
        let median = median(&stats.maxima);
        let loudest = stats.maxima.iter().copied().fold(0.0, f32::max);
        Self {
            layer: 0,
            role: String::new(),
            n: weights.len() / k,
            k,
            weight_nmse: 0.0,
            activation_nmse: probe.nmse(scales),
            num_outliers: stats
                .maxima
                .iter()
                .filter(|&&max| max > OUTLIER_RATIO * median)
                .count(),
            outlier_ratio: if median > 0.0 { loudest / median } else { 0.0 },
            num_dead: stats.num_dead,
            largest_smoothing: scales.iter().copied().fold(0.0, f32::max),
            num_smoothed: num_smoothed(scales),
            ratio_histogram: Vec::new(),
            num_scales_outside_f16: 0,
            group_divides_k: divides(options.group_size, k),
            sweep: sweep.to_vec(),
        }
    }

    /// Adds what the search found.
    pub fn finish(&mut self, layer: usize, role: Role, linear: &QuantizedLinear, fit: &LinearFit) {
        self.layer = layer;
        role.name().clone_into(&mut self.role);
        self.weight_nmse = fit.nmse();
        self.ratio_histogram.clone_from(&fit.ratio_histogram);
        self.num_scales_outside_f16 = scales_outside_f16(linear);
    }
}

fn scales_outside_f16(linear: &QuantizedLinear) -> usize {
    let outside = |row: usize| {
        let s1 = linear.s1()[row];
        let folded = linear.s2_row(row).iter().map(move |&s2| s1 * f32::from(s2));
        folded
            .filter(|&s| s != 0.0 && !(F16_MIN_NORMAL..=F16_MAX).contains(&s))
            .count()
    };
    (0..linear.n()).map(outside).sum()
}

fn divides(group_size: GroupSize, k: usize) -> bool {
    k.is_multiple_of(group_size.len(k))
}

fn num_smoothed(scales: &[f32]) -> usize {
    scales.iter().filter(|&&scale| scale != 1.0).count()
}

/// At most [`PROBE_ROWS`] rows, evenly spaced.
fn some_rows(weights: &[f32], k: usize) -> Vec<f32> {
    let n = weights.len() / k;
    let count = n.min(PROBE_ROWS);
    (0..count)
        .flat_map(|i| weights[i * n / count * k..][..k].iter().copied())
        .collect()
}

fn median(values: &[f32]) -> f32 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampled_rows_are_spread_over_the_layer() {
        let weights: Vec<f32> = (0..200).flat_map(|row| [row as f32; 2]).collect();
        let rows = some_rows(&weights, 2);
        assert_eq!(rows.len(), 2 * PROBE_ROWS);
        assert_eq!((rows[0], rows[2 * (PROBE_ROWS - 1)]), (0.0, 196.0));
        assert_eq!(some_rows(&weights[..6], 2), &weights[..6]);
    }
}
