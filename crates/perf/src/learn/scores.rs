//! Scores of predictions by target: runtime, power, energy, throughput, throughput per watt.

use std::collections::BTreeMap;

use super::judgement::{HeldOutEstimates, prediction};
use super::training_set::{Subset, TrainingSet};
use crate::data::Row;
use crate::predict::{Estimator, Interval, Prediction, Score};

/// A target's name, what a row measured of it, and what was predicted.
pub(crate) type Comparison = (&'static str, f64, Interval);

/// What a row measured and what was predicted for it, by target.
pub(crate) fn targets(row: &Row, prediction: &Prediction) -> Vec<Comparison> {
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

pub(crate) fn honest_scores(
    training_set: &TrainingSet<'_>,
    judged: &HeldOutEstimates,
) -> BTreeMap<String, Score> {
    let predictions: Vec<Prediction> = (0..training_set.samples.len())
        .map(|at| prediction(training_set, judged, at))
        .collect();
    score(
        training_set
            .samples
            .iter()
            .map(|sample| sample.row)
            .zip(&predictions),
    )
}

/// A random split of rows has no intervals of its own: those promise unseen shapes.
pub(crate) fn random_scores(
    training_set: &TrainingSet<'_>,
    estimator: &Estimator,
    seed: u64,
) -> BTreeMap<String, Score> {
    let mut seen = vec![false; training_set.samples.len()];
    training_set
        .subset(Subset::Random, seed)
        .into_iter()
        .for_each(|at| seen[at] = true);
    let unseen = (0..seen.len()).filter(|&at| !seen[at]);
    let predicted: Vec<(usize, Prediction)> = unseen
        .map(|at| {
            let estimate = training_set.estimate(estimator, at);
            let point = |log: f64| Interval::around(log.exp(), 0.0);
            let time_s = point(estimate.log_time);
            let energy_j = estimate.log_power.map(|power| point(power + estimate.log_time));
            let ops = training_set.samples[at].physics.roofline.ops;
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
            .map(|(at, prediction)| (training_set.samples[*at].row, prediction)),
    );
    scores.values_mut().for_each(|score| score.coverage = None);
    scores
}
