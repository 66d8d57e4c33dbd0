//! Which features matter: by the error that splits on a feature take away, and by the error that comes back when the
//! values of a feature are swapped between rows.

use std::collections::BTreeMap;

use super::options::FitOptions;
use super::trainer::features_of_target;
use super::training_set::TrainingSet;
use crate::predict::{Estimator, FeatureRow, Importance, NAMES};
use crate::trees::{Ensemble, Random, parallel};

/// Rows that values are swapped between.
const ROWS: usize = 1_500;

/// A prediction that is asked again with a swapped feature.
struct Case<'a> {
    trees: &'a Ensemble,
    features: FeatureRow,
    /// What the trees should say.
    truth: f64,
}

/// Importances for runtime and, where there is any, power.
pub(crate) fn of(
    training_set: &TrainingSet<'_>,
    folds: &[Estimator],
    whole: &Estimator,
    options: &FitOptions,
) -> BTreeMap<String, Vec<Importance>> {
    let mut random = Random::new(options.seed, 3 << 32);
    let count = training_set.samples.len();
    let rows = random.sample(count, count.min(ROWS));
    let time: Vec<Case<'_>> = rows
        .iter()
        .map(|&at| time_case(training_set, &folds[training_set.folds[at]], at))
        .collect();
    let with_power: Vec<usize> = (0..count)
        .filter(|&at| training_set.samples[at].row.power_w.is_some())
        .collect();
    let drawn = random.sample(with_power.len(), with_power.len().min(ROWS));
    let power: Vec<Case<'_>> = drawn
        .iter()
        .filter_map(|&at| {
            power_case(
                training_set,
                &folds[training_set.folds[with_power[at]]],
                with_power[at],
            )
        })
        .collect();
    let mut importances = BTreeMap::new();
    importances.insert(
        "runtime".to_owned(),
        sorted(&time, &whole.gains[0], false, options),
    );
    if !power.is_empty() {
        importances.insert("power".to_owned(), sorted(&power, &whole.gains[1], true, options));
    }
    importances
}

fn time_case<'a>(training_set: &TrainingSet<'_>, estimator: &'a Estimator, at: usize) -> Case<'a> {
    let sample = &training_set.samples[at];
    let estimate = training_set.estimate(estimator, at);
    let trees = &estimator.time[estimator.trees_of[training_set.config_index.kernel_of[sample.config]]];
    let said = f64::from(trees.sum(&estimate.features));
    Case {
        trees,
        features: estimate.features,
        truth: said + sample.time_s.ln() - estimate.log_time,
    }
}

fn power_case<'a>(training_set: &TrainingSet<'_>, estimator: &'a Estimator, at: usize) -> Option<Case<'a>> {
    let estimate = training_set.estimate(estimator, at);
    let trees = estimator.power.as_ref()?;
    let said = f64::from(trees.sum(&estimate.features));
    Some(Case {
        trees,
        features: estimate.features,
        truth: said + training_set.samples[at].row.power_w?.ln() - estimate.log_power?,
    })
}

fn sorted(cases: &[Case<'_>], gains: &[f64], power: bool, options: &FitOptions) -> Vec<Importance> {
    let all: f64 = gains.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    let features: Vec<usize> = features_of_target(power).collect();
    let untouched = error(cases, None, &[]);
    let mut order: Vec<usize> = (0..cases.len()).collect();
    Random::new(options.seed, 4 << 32).shuffle(&mut order);
    let permuted = parallel(options.threads, features.len(), |at| {
        error(cases, Some(features[at]), &order)
    });
    let mut importances: Vec<Importance> = features
        .iter()
        .zip(permuted)
        .map(|(&feature, permuted)| Importance {
            feature: NAMES[feature].to_owned(),
            gain: gains[feature] / all,
            permutation: permuted - untouched,
        })
        .collect();
    importances.sort_by(|left, right| right.permutation.total_cmp(&left.permutation));
    importances
}

/// Mean error of the logarithm, one feature taken from another row.
fn error(cases: &[Case<'_>], feature: Option<usize>, order: &[usize]) -> f64 {
    let errors = cases.iter().enumerate().map(|(at, case)| {
        let mut row = case.features;
        if let Some(feature) = feature {
            row[feature] = cases[order[at]].features[feature];
        }
        (f64::from(case.trees.sum(&row)) - case.truth).abs()
    });
    errors.sum::<f64>() / cases.len().max(1) as f64
}
