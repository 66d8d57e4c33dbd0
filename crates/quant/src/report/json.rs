//! What happened to every linear: errors, outliers, scales. JSON beside the model; `html.rs` makes a page of it.

use dualgrain_format::{LinearScheme, LinearWeights, QuantizedLinear};
use serde::{Deserialize, Serialize};

use crate::budget::choice::Choice;
use crate::calibrate::statistics::InputStatistics;
use crate::methods::method::MethodReport;
use crate::transform::linear_smoothing::LinearSmoothing;
use crate::transform::sample::{SweepPoint, num_smoothed};

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
    /// How a budget of bits was spent, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<Choice>,
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
    /// Which expert it belongs to, in a mixture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expert: Option<usize>,
    /// Tokens that went to the expert in calibration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_tokens: Option<usize>,
    /// What an expert was quantized by that saw too few tokens for statistics of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took: Option<String>,
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// How it is stored, where that differs from the run's usual four bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// Squared error of the output over the calibration tokens by the squared output: rounded weights alone.
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

/// Which linear a report is about.
#[derive(Debug, Clone, Copy)]
pub struct ReportedLinear {
    /// The block; the number of blocks for the head.
    pub layer: usize,
    /// `qkv`, `out`, `up`, `down` or `head`.
    pub role: &'static str,
    /// Which expert it belongs to, in a mixture.
    pub expert: Option<usize>,
    /// Output features.
    pub n: usize,
    /// What it becomes.
    pub scheme: LinearScheme,
    /// What most linears of the run become.
    pub usual: LinearScheme,
}

impl LinearReport {
    /// The report as far as it can be written before the weights are quantized, from `statistics` of the input as it is.
    pub fn new(
        linear: ReportedLinear,
        statistics: &InputStatistics,
        smoothing: &LinearSmoothing,
        activation_nmse: f64,
    ) -> Self {
        let (maxima, scales) = (&statistics.maxima, &smoothing.scales);
        let median = median(maxima);
        let loudest = maxima.iter().copied().fold(0.0, f32::max);
        Self {
            layer: linear.layer,
            role: linear.role.to_owned(),
            expert: linear.expert,
            num_tokens: None,
            took: None,
            n: linear.n,
            k: maxima.len(),
            scheme: (linear.scheme != linear.usual).then(|| linear.scheme.to_string()),
            weight_nmse: 0.0,
            activation_nmse,
            num_outliers: maxima.iter().filter(|&&max| max > OUTLIER_RATIO * median).count(),
            outlier_ratio: if median > 0.0 { loudest / median } else { 0.0 },
            num_dead: statistics.num_dead,
            percentile: smoothing.percentile,
            largest_smoothing: scales.iter().copied().fold(0.0, f32::max),
            num_smoothed: num_smoothed(scales),
            ratio_histogram: Vec::new(),
            num_scales_outside_f16: 0,
            group_divides_k: divides(linear.scheme, maxima.len()),
            sweep: smoothing.sweep.clone(),
        }
    }

    /// Adds what the method says.
    pub fn finish(&mut self, linear: &LinearWeights, method: &MethodReport) {
        self.weight_nmse = method.nmse();
        self.ratio_histogram.clone_from(&method.ratio_histogram);
        self.num_scales_outside_f16 = match linear {
            LinearWeights::W4(linear) => scales_outside_f16(linear),
            LinearWeights::W8(_) | LinearWeights::Float(_) => 0,
        };
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

fn divides(scheme: LinearScheme, k: usize) -> bool {
    scheme
        .group_size()
        .is_none_or(|size| k.is_multiple_of(size.len(k)))
}

fn median(values: &[f32]) -> f32 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}
