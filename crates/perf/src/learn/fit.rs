//! Fitting a model and judging it: on shapes it has not seen (the honest split), and as the paper does, on rows drawn at
//! random, of which it has seen neighbours.

use super::importance;
use crate::data::{Dataset, Row};
use crate::error::PerfError;
use crate::machine::Machine;
use crate::predict::{
    Catalogue, Estimate, Estimator, FitOptions, Interval, LEAST_POWER_ROWS, Learner, Model, NAMES, Parts,
    Prediction, Residual, Sample, Score, Spread, Spreading, calibrate, samples, scales, widths,
};
use crate::product::Product;
use crate::roofline::check_machine;
use crate::trees::{Random, parallel};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

/// Share of rows that a random split tests on, as the paper's.
const RANDOM_TEST_SHARE: f64 = 0.2;
/// Fewer sound rows, or shapes, than these teach nothing.
const LEAST_ROWS: usize = 50;
const LEAST_SHAPES: usize = 10;

/// A prediction for a row by a model that has seen no row of its shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeldOut {
    /// The row's place in the set.
    pub row_idx: usize,
    /// What was predicted.
    pub prediction: Prediction,
}

/// Scores by split (`shape`, `random`) and target (`runtime`, `power`, `energy`, `throughput`, `throughput_per_watt`).
pub type Scores = BTreeMap<String, BTreeMap<String, Score>>;

/// How a model came about and how good it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FitReport {
    /// Rows learned from.
    pub num_rows: usize,
    /// Those of them with power.
    pub num_power_rows: usize,
    /// Distinct shapes.
    pub num_shapes: usize,
    /// `boost` or `forest`.
    pub learner: String,
    /// Mean error of runtime's logarithm where no tree of a forest had seen the shape; none of boosting.
    pub out_of_bag_error: Option<f64>,
    /// Seed of everything random.
    pub seed: u64,
    /// Day of the first row.
    pub date: String,
    /// `git describe` of the program that measured.
    pub measured_by: String,
    /// Agreement with measurements.
    pub scores: Scores,
    /// What matters, by target.
    pub importances: BTreeMap<String, Vec<Importance>>,
}

/// How much a feature matters to a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Importance {
    /// Its name.
    pub feature: String,
    /// Share of the squared error that splits on it took away.
    pub gain: f64,
    /// How much the mean error (of the logarithm) on unseen shapes grows when its values are swapped between rows.
    pub permutation: f64,
}

/// A set made ready to learn from.
pub(crate) struct Ground<'a> {
    pub catalogue: Catalogue,
    pub samples: Vec<Sample<'a>>,
    pub num_shapes: usize,
    pub num_folds: usize,
    /// Of each sample: the fold of its shape.
    pub folds: Vec<usize>,
    pub machine: &'a Machine,
}

impl<'a> Ground<'a> {
    pub fn new(data: &'a Dataset, options: &FitOptions) -> Result<Self, PerfError> {
        let machine = &data.manifest.machine;
        check_machine(machine)?;
        let catalogue = Catalogue::new(data)?;
        let (samples, num_shapes) = samples(data, &catalogue, machine)?;
        for (what, least, got) in [
            ("rows to learn from", LEAST_ROWS, samples.len()),
            ("distinct shapes to learn from", LEAST_SHAPES, num_shapes),
        ] {
            if got < least {
                return Err(PerfError::TooLittle {
                    what: what.to_owned(),
                    expected: format!("at least {least} that are verified, timed and unmarked"),
                    got: got.to_string(),
                });
            }
        }
        let num_folds = options.folds.clamp(2, num_shapes / 2);
        let mut fold_of: Vec<usize> = (0..num_shapes).map(|shape| shape % num_folds).collect();
        Random::new(options.seed, 1 << 32).shuffle(&mut fold_of);
        Ok(Self {
            num_folds,
            folds: samples
                .iter()
                .map(|sample| fold_of[sample.shape as usize])
                .collect(),
            catalogue,
            samples,
            num_shapes,
            machine,
        })
    }

    fn fit(&self, train: &[usize], options: &FitOptions) -> Estimator {
        Estimator::fit(&self.samples, train, &self.catalogue, self.machine, options)
    }

    pub fn estimate(&self, estimator: &Estimator, at: usize) -> Estimate {
        let sample = &self.samples[at];
        let product = Product::of_row(sample.row);
        estimator.estimate(
            &self.catalogue,
            sample.config,
            &product,
            &sample.physics,
            self.machine,
        )
    }

    /// All samples, those outside a fold, or those a random split learns from.
    fn part(&self, part: Part, seed: u64) -> Vec<usize> {
        let all = 0..self.samples.len();
        match part {
            Part::All => all.collect(),
            Part::Outside(fold) => all.filter(|&at| self.folds[at] != fold).collect(),
            Part::Random => {
                let share = (1.0 - RANDOM_TEST_SHARE) * self.samples.len() as f64;
                Random::new(seed, 2 << 32).sample(self.samples.len(), share as usize)
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Part {
    All,
    Outside(usize),
    Random,
}

/// Estimates on unseen shapes with the half widths of their intervals.
struct Judged {
    estimates: Vec<Estimate>,
    time_widths: Vec<f64>,
    /// Of samples with power, by their place: half widths of power and of energy.
    power_widths: BTreeMap<usize, (f64, f64)>,
    time: Spread,
    power: Option<(Spread, Vec<f64>)>,
}

impl Model {
    /// Learns from measurements; judges itself on shapes left out and on rows left out at random.
    ///
    /// # Errors
    /// Rows nothing can be learned from, kernels whose names say no types.
    pub fn fit(data: &Dataset) -> Result<Self, PerfError> {
        Self::fit_with(data, &FitOptions::default())
    }

    /// As [`Model::fit`], with options.
    ///
    /// # Errors
    /// As [`Model::fit`].
    pub fn fit_with(data: &Dataset, options: &FitOptions) -> Result<Self, PerfError> {
        let ground = Ground::new(data, options)?;
        let parts: Vec<Part> = (0..ground.num_folds)
            .map(Part::Outside)
            .chain([Part::All, Part::Random])
            .collect();
        let mut fitted = parallel(options.threads, parts.len(), |at| {
            ground.fit(&ground.part(parts[at], options.seed), options)
        });
        let (random, whole) = (fitted.pop(), fitted.pop());
        let (Some(random), Some(estimator)) = (random, whole) else {
            unreachable!("one result a part")
        };
        let judged = judge(&ground, &fitted, options);
        let mut scores = Scores::new();
        scores.insert("shape".to_owned(), honest_scores(&ground, &judged));
        scores.insert("random".to_owned(), random_scores(&ground, &random, options.seed));
        let report = FitReport {
            num_rows: ground.samples.len(),
            num_power_rows: ground.samples.iter().filter(|s| s.row.power_w.is_some()).count(),
            num_shapes: ground.num_shapes,
            learner: format!("{:?}", options.learner).to_lowercase(),
            out_of_bag_error: match estimator.out_of_bag {
                (_, 0) => None,
                (sum, count) => Some(sum / count as f64),
            },
            seed: options.seed,
            date: data.manifest.date.clone(),
            measured_by: data.manifest.version.clone(),
            scores,
            importances: importance::of(&ground, &fitted, &estimator, options),
        };
        Ok(Self::from_parts(Parts {
            machine: data.manifest.machine.clone(),
            catalogue: ground.catalogue,
            estimator,
            time_spread: judged.time,
            power_spread: judged.power,
            report,
        }))
    }
}

impl Model {
    /// As [`Model::fit_with`], by whichever learner has the lesser mean error of runtime on unseen shapes.
    ///
    /// # Errors
    /// As [`Model::fit`].
    pub fn fit_best(data: &Dataset, options: &FitOptions) -> Result<Self, PerfError> {
        let ground = Ground::new(data, options)?;
        // One fold decides: a forest takes several times as long to grow.
        let errors = parallel(options.threads, 2, |which| {
            let learner = [Learner::Boost, Learner::Forest][which];
            let how = FitOptions { learner, ..*options };
            let estimator = ground.fit(&ground.part(Part::Outside(0), options.seed), &how);
            let unseen = (0..ground.samples.len()).filter(|&at| ground.folds[at] == 0);
            let error =
                |at: usize| (ground.samples[at].time_s.ln() - ground.estimate(&estimator, at).log_time).abs();
            (unseen.map(error).sum::<f64>(), learner)
        });
        let best = errors
            .into_iter()
            .min_by(|left, right| left.0.total_cmp(&right.0));
        let learner = best.map_or(options.learner, |(_, learner)| learner);
        Self::fit_with(data, &FitOptions { learner, ..*options })
    }
}

/// Predictions for all sound rows, each by a model that has seen no row of its shape: what the honest split is judged by.
/// `done` counts the folds that are learned, of [`FitOptions::folds`].
///
/// # Errors
/// As [`Model::fit`].
pub fn held_out(data: &Dataset, options: &FitOptions, done: &AtomicUsize) -> Result<Vec<HeldOut>, PerfError> {
    let ground = Ground::new(data, options)?;
    let fitted = parallel(options.threads, ground.num_folds, |fold| {
        let estimator = ground.fit(&ground.part(Part::Outside(fold), options.seed), options);
        done.fetch_add(1, Ordering::Relaxed);
        estimator
    });
    let judged = judge(&ground, &fitted, options);
    let predictions = (0..ground.samples.len()).map(|at| HeldOut {
        row_idx: ground.samples[at].row_idx,
        prediction: prediction(&ground, &judged, at),
    });
    Ok(predictions.collect())
}

fn judge(ground: &Ground<'_>, folds: &[Estimator], options: &FitOptions) -> Judged {
    let indices = 0..ground.samples.len();
    let estimates: Vec<Estimate> = indices
        .clone()
        .map(|at| ground.estimate(&folds[ground.folds[at]], at))
        .collect();
    let residual = |at: usize, value: f64| Residual {
        features: estimates[at].features,
        value,
        fold: ground.folds[at],
        kernel: ground.catalogue.kernel_of[ground.samples[at].config],
    };
    let num_kernels = ground.catalogue.kernels.len();
    let log_time = |at: usize| ground.samples[at].time_s.ln() - estimates[at].log_time;
    let times: Vec<Residual> = indices.clone().map(|at| residual(at, log_time(at))).collect();
    let with_power: Vec<(usize, f64)> = indices
        .filter_map(|at| {
            Some((
                at,
                ground.samples[at].row.power_w?.ln() - estimates[at].log_power?,
            ))
        })
        .collect();
    let powers: Vec<Residual> = with_power
        .iter()
        .map(|&(at, value)| residual(at, value))
        .collect();
    let mut calibrated = parallel(options.threads, 2, |which| match which {
        0 => Some(calibrate(&times, ground.num_folds, num_kernels, options.seed)),
        _ => (powers.len() >= LEAST_POWER_ROWS)
            .then(|| calibrate(&powers, ground.num_folds, num_kernels, options.seed)),
    });
    let power = calibrated.pop().flatten();
    let Some((time, time_widths)) = calibrated.pop().flatten() else {
        unreachable!("times are always calibrated")
    };
    let mut judged = Judged {
        estimates,
        time_widths,
        power_widths: BTreeMap::new(),
        time,
        power: None,
    };
    if let Some((spread, widths)) = power {
        judged.add_power(ground, &with_power, spread, &widths);
    }
    judged
}

impl Judged {
    /// Power's half widths, and energy's: time's and power's together, scaled to the coverage of energy.
    fn add_power(&mut self, ground: &Ground<'_>, with_power: &[(usize, f64)], spread: Spread, power: &[f64]) {
        let energies: Vec<(usize, Spreading)> = with_power
            .iter()
            .zip(power)
            .filter_map(|(&(at, _), power)| {
                let estimate = &self.estimates[at];
                let predicted = estimate.log_time + estimate.log_power?;
                let spreading = Spreading {
                    value: ground.samples[at].row.energy_j?.ln() - predicted,
                    local: self.time_widths[at].hypot(*power),
                    fold: ground.folds[at],
                    kernel: ground.catalogue.kernel_of[ground.samples[at].config],
                };
                Some((at, spreading))
            })
            .collect();
        let spreading: Vec<Spreading> = energies.iter().map(|(_, one)| *one).collect();
        let num_kernels = ground.catalogue.kernels.len();
        let widths = widths(&spreading, ground.num_folds, num_kernels);
        let energy: BTreeMap<usize, f64> = energies.iter().map(|(at, _)| *at).zip(widths).collect();
        for (&(at, _), &power) in with_power.iter().zip(power) {
            let energy = energy.get(&at).copied().unwrap_or(power + self.time_widths[at]);
            self.power_widths.insert(at, (power, energy));
        }
        self.power = Some((spread, scales(spreading.iter(), num_kernels)));
    }
}

fn prediction(ground: &Ground<'_>, judged: &Judged, at: usize) -> Prediction {
    let estimate = &judged.estimates[at];
    let time_s = Interval::around(estimate.log_time.exp(), judged.time_widths[at]);
    let both = estimate.log_power.zip(judged.power_widths.get(&at));
    let power_w = both.map(|(log_power, (width, _))| Interval::around(log_power.exp(), *width));
    let energy_j =
        both.map(|(log_power, (_, width))| Interval::around((estimate.log_time + log_power).exp(), *width));
    let ops = ground.samples[at].physics.work.ops;
    Prediction {
        time_s,
        power_w,
        energy_j,
        ops_per_s: time_s.rate(ops),
        ops_per_j: energy_j.map(|energy| energy.rate(ops)),
        extrapolated: false,
    }
}

/// A target's name, what a row measured of it, and what was predicted.
pub(crate) type Target = (&'static str, f64, Interval);

/// What a row measured and what was predicted for it, by target.
pub(crate) fn targets(row: &Row, prediction: &Prediction) -> Vec<Target> {
    let mut targets = Vec::new();
    let ops = row.ops();
    if let Some(time_s) = row.time_s {
        targets.push(("runtime", time_s, prediction.time_s));
        targets.push(("throughput", ops / time_s, prediction.ops_per_s));
    }
    targets.extend(
        row.power_w
            .zip(prediction.power_w)
            .map(|(measured, predicted)| ("power", measured, predicted)),
    );
    if let (Some(energy_j), Some(energy), Some(rate)) =
        (row.energy_j, prediction.energy_j, prediction.ops_per_j)
    {
        targets.push(("energy", energy_j, energy));
        targets.push(("throughput_per_watt", ops / energy_j, rate));
    }
    targets
}

/// Scores of predictions for rows, by target.
pub fn score<'a>(pairs: impl Iterator<Item = (&'a Row, &'a Prediction)>) -> BTreeMap<String, Score> {
    let mut values: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    let mut held: BTreeMap<&str, usize> = BTreeMap::new();
    for (row, prediction) in pairs {
        for (target, measured, predicted) in targets(row, prediction) {
            values
                .entry(target)
                .or_default()
                .push((measured, predicted.value));
            *held.entry(target).or_default() += usize::from(predicted.holds(measured));
        }
    }
    let scored = values.into_iter().filter_map(|(target, pairs)| {
        let mut score = Score::new(&pairs)?;
        score.coverage = Some(held[target] as f64 / pairs.len() as f64);
        Some((target.to_owned(), score))
    });
    scored.collect()
}

fn honest_scores(ground: &Ground<'_>, judged: &Judged) -> BTreeMap<String, Score> {
    let predictions: Vec<Prediction> = (0..ground.samples.len())
        .map(|at| prediction(ground, judged, at))
        .collect();
    score(ground.samples.iter().map(|sample| sample.row).zip(&predictions))
}

/// A random split of rows has no intervals of its own: those promise unseen shapes.
fn random_scores(ground: &Ground<'_>, estimator: &Estimator, seed: u64) -> BTreeMap<String, Score> {
    let mut seen = vec![false; ground.samples.len()];
    ground
        .part(Part::Random, seed)
        .into_iter()
        .for_each(|at| seen[at] = true);
    let unseen = (0..seen.len()).filter(|&at| !seen[at]);
    let predicted: Vec<(usize, Prediction)> = unseen
        .map(|at| {
            let estimate = ground.estimate(estimator, at);
            let point = |log: f64| Interval::around(log.exp(), 0.0);
            let time_s = point(estimate.log_time);
            let energy_j = estimate.log_power.map(|power| point(power + estimate.log_time));
            let ops = ground.samples[at].physics.work.ops;
            let prediction = Prediction {
                time_s,
                power_w: estimate.log_power.map(point),
                energy_j,
                ops_per_s: time_s.rate(ops),
                ops_per_j: energy_j.map(|energy| energy.rate(ops)),
                extrapolated: false,
            };
            (at, prediction)
        })
        .collect();
    let mut scores = score(
        predicted
            .iter()
            .map(|(at, prediction)| (ground.samples[*at].row, prediction)),
    );
    scores.values_mut().for_each(|score| score.coverage = None);
    scores
}

/// Names of all features, in the order of a row.
pub fn feature_names() -> &'static [&'static str] {
    &NAMES
}
