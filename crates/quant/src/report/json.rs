//! What happened to every linear: errors, outliers, scales. JSON beside the model; `html.rs` makes the picture.

use dualgrain_device::Device;
use dualgrain_format::{GroupSize, QuantizedLinear};
use serde::{Deserialize, Serialize};

use crate::calibrate::hidden_states::InputStats;
use crate::methods::linear::{FloatRows, LinearFit, round_to_nearest_error};
use crate::options::QuantOptions;
use crate::transform::activation_error::Probe;
use crate::transform::smoothing::{CANDIDATE_PERCENTILES, PAPER_PERCENTILE, Smoothing};

/// Rows of a linear that the sweep and the activation error look at.
const PROBE_ROWS: usize = 64;

/// See [`best_percentile`]. Without it opt-tiny lost 7 % of perplexity by one unlucky choice in a qkv.
const CLEARLY_BETTER: f64 = 0.75;

/// A channel this many times louder than the median channel is an outlier.
const OUTLIER_RATIO: f32 = 6.0;

/// Smallest normal fp16 number: below it a folded scale `s1 * s2` loses digits.
const F16_MIN_NORMAL: f32 = 6.103_515_6e-5;

/// Largest fp16 number.
const F16_MAX: f32 = 65_504.0;

/// The report of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuantReport {
    /// Name of the original model's folder.
    pub model: String,
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LinearReport {
    /// The block; the number of blocks for the head.
    pub layer: usize,
    /// `qkv`, `out`, `up`, `down` or `head`.
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
    /// The percentile the input was smoothed to, if it was.
    pub percentile: Option<f64>,
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
    /// What other percentiles would have given; empty when nothing before the linear can take smoothing scales.
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

/// Judges smoothing scales on a linear before the search: a sample of rows rounded to nearest, a sample of inputs.
pub struct Trial<'a, D: Device> {
    device: &'a D,
    options: &'a QuantOptions,
    stats: &'a InputStats,
    rows: Vec<f32>,
    k: usize,
}

impl<'a, D: Device> Trial<'a, D> {
    /// A trial on `weights` and statistics as they are before smoothing.
    pub fn new(device: &'a D, options: &'a QuantOptions, stats: &'a InputStats, weights: &[f32]) -> Self {
        let k = stats.maxima.len();
        Self {
            device,
            options,
            stats,
            rows: some_rows(weights, k),
            k,
        }
    }

    /// Every candidate percentile, with the scales that `scales` gives for it.
    pub fn sweep(&self, scales: impl Fn(Smoothing) -> Vec<f32>) -> Vec<SweepPoint> {
        let point = |percentile| {
            let scales = scales(Smoothing::Percentile(percentile));
            SweepPoint {
                percentile,
                weight_nmse: self.weight_nmse(&scales),
                activation_nmse: self.activation_nmse(&scales),
                num_smoothed: num_smoothed(&scales),
            }
        };
        CANDIDATE_PERCENTILES.map(point).to_vec()
    }

    fn weight_nmse(&self, scales: &[f32]) -> f64 {
        let layer = FloatRows {
            weights: &self.rows,
            k: self.k,
            bias: None,
        };
        let group_size = self.options.group_size;
        round_to_nearest_error(self.device, layer, &self.stats.gram, scales, group_size)
    }

    fn activation_nmse(&self, scales: &[f32]) -> f64 {
        let probe = Probe {
            samples: &self.stats.samples,
            maxima: &self.stats.maxima,
            weights: &self.rows,
            scheme: self.options.activations,
        };
        probe.nmse(scales)
    }

    /// The report as far as it can be written before the search.
    pub fn report(
        &self,
        n: usize,
        scales: &[f32],
        sweep: Vec<SweepPoint>,
        percentile: Option<f64>,
    ) -> LinearReport {
        let maxima = &self.stats.maxima;
        let median = median(maxima);
        let loudest = maxima.iter().copied().fold(0.0, f32::max);
        LinearReport {
            layer: 0,
            role: String::new(),
            n,
            k: self.k,
            weight_nmse: 0.0,
            activation_nmse: self.activation_nmse(scales),
            num_outliers: maxima.iter().filter(|&&max| max > OUTLIER_RATIO * median).count(),
            outlier_ratio: if median > 0.0 { loudest / median } else { 0.0 },
            num_dead: self.stats.num_dead,
            percentile,
            largest_smoothing: scales.iter().copied().fold(0.0, f32::max),
            num_smoothed: num_smoothed(scales),
            ratio_histogram: Vec::new(),
            num_scales_outside_f16: 0,
            group_divides_k: divides(self.options.group_size, self.k),
            sweep,
        }
    }
}

/// The paper's percentile, unless a lower one (a layer with more outliers than it expects) leaves at most
/// [`CLEARLY_BETTER`] of its error: the sample is small and rounded to nearest, and what wins by little there often
/// loses after the search.
pub fn best_percentile(sweep: &[SweepPoint]) -> Option<f64> {
    let paper = sweep.iter().find(|point| point.percentile == PAPER_PERCENTILE)?;
    let lower = sweep.iter().filter(|point| point.percentile <= PAPER_PERCENTILE);
    let least = lower.min_by(|a, b| a.error().total_cmp(&b.error()))?;
    let clear = least.error() < CLEARLY_BETTER * paper.error();
    Some(if clear { least.percentile } else { paper.percentile })
}

impl SweepPoint {
    fn error(&self) -> f64 {
        self.weight_nmse + self.activation_nmse
    }
}

impl LinearReport {
    /// Adds what the search found.
    pub fn finish(&mut self, layer: usize, role: &str, linear: &QuantizedLinear, fit: &LinearFit) {
        self.layer = layer;
        role.clone_into(&mut self.role);
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
    fn the_percentile_leaves_the_papers_only_for_a_clear_gain() {
        let sweep = |errors: [f64; 3]| -> Vec<SweepPoint> {
            let points = [100.0, 99.5, 98.0].into_iter().zip(errors);
            points
                .map(|(percentile, weight_nmse)| SweepPoint {
                    percentile,
                    weight_nmse,
                    activation_nmse: 0.0,
                    num_smoothed: 0,
                })
                .collect()
        };
        assert_eq!(best_percentile(&sweep([1.0, 1.0, 0.8])), Some(99.5));
        assert_eq!(best_percentile(&sweep([1.0, 1.0, 0.5])), Some(98.0));
        assert_eq!(best_percentile(&sweep([0.1, 1.0, 0.8])), Some(99.5));
        assert_eq!(best_percentile(&sweep([0.0; 3])), Some(99.5));
    }

    #[test]
    fn sampled_rows_are_spread_over_the_layer() {
        let weights: Vec<f32> = (0..200).flat_map(|row| [row as f32; 2]).collect();
        let rows = some_rows(&weights, 2);
        assert_eq!(rows.len(), 2 * PROBE_ROWS);
        assert_eq!((rows[0], rows[2 * (PROBE_ROWS - 1)]), (0.0, 196.0));
        assert_eq!(some_rows(&weights[..6], 2), &weights[..6]);
    }
}
