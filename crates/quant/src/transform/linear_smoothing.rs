//! Which smoothing scales the input of one linear gets.

use dualgrain_device::{DeviceError, Statistics};

use crate::transform::producer::Producer;
use crate::transform::sample::{LinearSample, SweepPoint};
use crate::transform::smoothing::{PAPER_PERCENTILE, Smoothing};

/// See [`best_percentile`]. Without it opt-tiny lost 7 % of perplexity by one unlucky choice in a qkv.
const CLEARLY_BETTER: f64 = 0.75;

/// The smoothing of a linear's input.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearSmoothing {
    /// What is divided by the scales; `None` when the input is left as it is.
    pub producer: Option<Producer>,
    /// `[K]`; all 1 when the input is left as it is.
    pub scales: Vec<f32>,
    /// The percentile the input is smoothed to, if it is.
    pub percentile: Option<f64>,
    /// What every percentile would give; empty when nothing before the linear can take scales.
    pub sweep: Vec<SweepPoint>,
}

impl LinearSmoothing {
    /// An input of `k` channels left as it is.
    pub fn none(k: usize) -> Self {
        Self {
            producer: None,
            scales: vec![1.0; k],
            percentile: None,
            sweep: Vec::new(),
        }
    }

    /// The scales of an input made by `producer`, under `smoothing`, which is left off unless `on`.
    /// `column_maxima` `[K]` are those of the linear's weights.
    ///
    /// # Errors
    /// The device failed.
    pub fn choose<D: Statistics>(
        producer: Option<Producer>,
        (smoothing, on): (Smoothing, bool),
        sample: &LinearSample<'_, D>,
        column_maxima: &[f32],
    ) -> Result<Self, DeviceError> {
        let none = Self::none(column_maxima.len());
        let Some(producer) = producer else {
            return Ok(none);
        };
        let scales = |smoothing| producer.input_scales(smoothing, sample.maxima(), column_maxima);
        let sweep = sample.sweep(scales)?;
        if !on || smoothing == Smoothing::Off {
            return Ok(Self { sweep, ..none });
        }
        let smoothing = match (smoothing, best_percentile(&sweep)) {
            (Smoothing::Auto, Some(percentile)) => Smoothing::Percentile(percentile),
            (smoothing, _) => smoothing,
        };
        Ok(Self {
            producer: Some(producer),
            scales: scales(smoothing),
            percentile: match smoothing {
                Smoothing::Percentile(percentile) => Some(percentile),
                Smoothing::Off | Smoothing::Auto | Smoothing::Alpha(_) => None,
            },
            sweep,
        })
    }
}

/// The paper's percentile, unless a lower one (a layer with more outliers than it expects) leaves at most
/// [`CLEARLY_BETTER`] of its error: the sample is small and rounded to nearest, and what wins by little there often
/// loses after the search.
fn best_percentile(sweep: &[SweepPoint]) -> Option<f64> {
    let error = |point: &SweepPoint| point.weight_nmse + point.activation_nmse;
    let paper = sweep.iter().find(|point| point.percentile == PAPER_PERCENTILE)?;
    let lower = sweep.iter().filter(|point| point.percentile <= PAPER_PERCENTILE);
    let least = lower.min_by(|a, b| error(a).total_cmp(&error(b)))?;
    let clear = error(least) < CLEARLY_BETTER * error(paper);
    Some(if clear { least.percentile } else { paper.percentile })
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
}
