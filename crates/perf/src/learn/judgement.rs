//! Judges a fit on unseen shapes: the rows of each fold are predicted by the estimator that was trained without them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::calibration::{Residual, WidthSample, calibrate, scales, widths};
use super::options::FitOptions;
use super::trainer::LEAST_POWER_ROWS;
use super::training_set::{Subset, TrainingSet};
use crate::data::Dataset;
use crate::error::PerfError;
use crate::predict::{Estimate, Estimator, Interval, Prediction, WidthModel};
use crate::trees::parallel;

/// A prediction for a row by a model that has seen no row of its shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeldOut {
    /// The row's place in the set.
    pub row_idx: usize,
    /// What was predicted.
    pub prediction: Prediction,
}

/// Estimates on unseen shapes with the half widths of their intervals.
pub(crate) struct HeldOutEstimates {
    estimates: Vec<Estimate>,
    time_widths: Vec<f64>,
    /// Of samples with power, by their place: half widths of power and of energy.
    power_widths: BTreeMap<usize, (f64, f64)>,
    pub(crate) time: WidthModel,
    pub(crate) power: Option<(WidthModel, Vec<f64>)>,
}

/// Predictions for all sound rows, each by a model that has seen no row of its shape: what the honest split is judged by.
/// `done` counts the folds that are learned, of [`FitOptions::folds`].
///
/// # Errors
/// As `Model::fit`.
pub fn held_out(data: &Dataset, options: &FitOptions, done: &AtomicUsize) -> Result<Vec<HeldOut>, PerfError> {
    let training_set = TrainingSet::new(data, options)?;
    let fitted = parallel(options.threads, training_set.num_folds, |fold| {
        let estimator = training_set.fit(&training_set.subset(Subset::Outside(fold), options.seed), options);
        done.fetch_add(1, Ordering::Relaxed);
        estimator
    });
    let judged = judge_folds(&training_set, &fitted, options);
    let predictions = (0..training_set.samples.len()).map(|at| HeldOut {
        row_idx: training_set.samples[at].row_idx,
        prediction: prediction(&training_set, &judged, at),
    });
    Ok(predictions.collect())
}

pub(crate) fn judge_folds(
    training_set: &TrainingSet<'_>,
    folds: &[Estimator],
    options: &FitOptions,
) -> HeldOutEstimates {
    let samples = &training_set.samples;
    let estimate = |at| training_set.estimate(&folds[training_set.folds[at]], at);
    let estimates: Vec<Estimate> = (0..samples.len()).map(estimate).collect();
    let log_time = |at: usize| samples[at].time_s.ln() - estimates[at].log_time;
    let log_power = |at: usize| Some(samples[at].row.power_w?.ln() - estimates[at].log_power?);
    let off_times: Vec<(usize, f64)> = (0..samples.len()).map(|at| (at, log_time(at))).collect();
    let with_power: Vec<(usize, f64)> = (0..samples.len())
        .filter_map(|at| Some((at, log_power(at)?)))
        .collect();
    let mut calibrated = parallel(options.threads, 2, |which| {
        let (off, least) = [(&off_times, 0), (&with_power, LEAST_POWER_ROWS)][which];
        let residuals = residuals(training_set, &estimates, off);
        let num_kernels = training_set.config_index.kernels.len();
        (off.len() >= least).then(|| calibrate(&residuals, training_set.num_folds, num_kernels, options.seed))
    });
    let power = calibrated.pop().flatten();
    let Some((time, time_widths)) = calibrated.pop().flatten() else {
        unreachable!("times are always calibrated")
    };
    let mut judged = HeldOutEstimates {
        estimates,
        time_widths,
        power_widths: BTreeMap::new(),
        time,
        power: None,
    };
    if let Some((width_model, widths)) = power {
        judged.add_power(training_set, &with_power, width_model, &widths);
    }
    judged
}

/// How far the estimates are off, of samples by their place, as the interval's width is learned from it.
fn residuals(training_set: &TrainingSet<'_>, estimates: &[Estimate], off: &[(usize, f64)]) -> Vec<Residual> {
    let residual = |&(at, value): &(usize, f64)| Residual {
        features: estimates[at].features,
        value,
        fold: training_set.folds[at],
        kernel: training_set.kernel_of(at),
    };
    off.iter().map(residual).collect()
}

impl HeldOutEstimates {
    /// Power's half widths, and energy's: time's and power's together, scaled to the coverage of energy.
    fn add_power(
        &mut self,
        training_set: &TrainingSet<'_>,
        with_power: &[(usize, f64)],
        width_model: WidthModel,
        power: &[f64],
    ) {
        let energies = with_power.iter().zip(power);
        let energies: Vec<(usize, WidthSample)> = energies
            .filter_map(|(&(at, _), &power)| Some((at, self.energy_sample(training_set, at, power)?)))
            .collect();
        let samples: Vec<WidthSample> = energies.iter().map(|(_, one)| *one).collect();
        let num_kernels = training_set.config_index.kernels.len();
        let widths = widths(&samples, training_set.num_folds, num_kernels);
        let energy: BTreeMap<usize, f64> = energies.iter().map(|(at, _)| *at).zip(widths).collect();
        for (&(at, _), &power) in with_power.iter().zip(power) {
            let energy = energy.get(&at).copied().unwrap_or(power + self.time_widths[at]);
            self.power_widths.insert(at, (power, energy));
        }
        self.power = Some((width_model, scales(samples.iter(), num_kernels)));
    }

    /// How far the estimate of a sample's energy is off; `None` where no energy was measured or estimated. `power_width` is
    /// the half width of its power.
    fn energy_sample(
        &self,
        training_set: &TrainingSet<'_>,
        at: usize,
        power_width: f64,
    ) -> Option<WidthSample> {
        let estimate = &self.estimates[at];
        let predicted = estimate.log_time + estimate.log_power?;
        Some(WidthSample {
            value: training_set.samples[at].row.energy_j?.ln() - predicted,
            local: self.time_widths[at].hypot(power_width),
            fold: training_set.folds[at],
            kernel: training_set.kernel_of(at),
        })
    }
}

pub(crate) fn prediction(training_set: &TrainingSet<'_>, judged: &HeldOutEstimates, at: usize) -> Prediction {
    let estimate = &judged.estimates[at];
    let time_s = Interval::around(estimate.log_time.exp(), judged.time_widths[at]);
    let both = estimate.log_power.zip(judged.power_widths.get(&at));
    let power_w = both.map(|(log_power, (width, _))| Interval::around(log_power.exp(), *width));
    let energy_j =
        both.map(|(log_power, (_, width))| Interval::around((estimate.log_time + log_power).exp(), *width));
    let ops = training_set.samples[at].physics.roofline.ops;
    Prediction {
        time_s,
        power_w,
        energy_j,
        ops_per_s: time_s.rate(ops),
        ops_per_j: energy_j.map(|energy| energy.rate(ops)),
        extrapolated: false,
    }
}
