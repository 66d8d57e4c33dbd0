//! Fits a model and judges it twice: on shapes that it has not seen, and, as the paper does, on rows drawn at random, of
//! which it has seen rows of the same shape.

use std::collections::BTreeMap;

use super::importance;
use super::judgement::judge_folds;
use super::options::{FitOptions, Learner};
use super::scores::{honest_scores, random_scores};
use super::training_set::{Subset, TrainingSet};
use crate::data::Dataset;
use crate::error::PerfError;
use crate::predict::{Estimator, FitSummary, Model, ModelParts, Scores};
use crate::trees::parallel;

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
        let training_set = TrainingSet::new(data, options)?;
        let subsets: Vec<Subset> = (0..training_set.num_folds)
            .map(Subset::Outside)
            .chain([Subset::All, Subset::Random])
            .collect();
        let mut fitted = parallel(options.threads, subsets.len(), |at| {
            training_set.fit(&training_set.subset(subsets[at], options.seed), options)
        });
        let (random, whole) = (fitted.pop(), fitted.pop());
        let (Some(random), Some(mut estimator)) = (random, whole) else {
            unreachable!("one result a part")
        };
        let judged = judge_folds(&training_set, &fitted, options);
        if judged.power.is_none() {
            estimator.forget_power();
        }
        let fit_summary = FitSummary {
            scores: Scores::from([
                ("shape".to_owned(), honest_scores(&training_set, &judged)),
                (
                    "random".to_owned(),
                    random_scores(&training_set, &random, options.seed),
                ),
            ]),
            importances: importance::of(&training_set, &fitted, &estimator, options),
            ..summary_without_scores(data, &training_set, &estimator, options)
        };
        Ok(Self::from_parts(ModelParts {
            machine: data.manifest.machine.clone(),
            config_index: training_set.config_index,
            estimator,
            time_width: judged.time,
            power_width: judged.power,
            fit_summary,
        }))
    }
}

fn summary_without_scores(
    data: &Dataset,
    training_set: &TrainingSet<'_>,
    estimator: &Estimator,
    options: &FitOptions,
) -> FitSummary {
    let with_power = training_set.samples.iter().filter(|s| s.row.power_w.is_some());
    FitSummary {
        num_rows: training_set.samples.len(),
        num_power_rows: with_power.count(),
        num_shapes: training_set.num_shapes,
        learner: format!("{:?}", options.learner).to_lowercase(),
        out_of_bag_error: match estimator.out_of_bag {
            (_, 0) => None,
            (sum, count) => Some(sum / count as f64),
        },
        seed: options.seed,
        date: data.manifest.date.clone(),
        measured_by: data.manifest.version.clone(),
        scores: Scores::new(),
        importances: BTreeMap::new(),
    }
}

impl Model {
    /// As [`Model::fit_with`], by whichever learner has the lesser mean error of runtime on unseen shapes.
    ///
    /// # Errors
    /// As [`Model::fit`].
    pub fn fit_best(data: &Dataset, options: &FitOptions) -> Result<Self, PerfError> {
        let training_set = TrainingSet::new(data, options)?;
        // One fold decides: a forest takes several times as long to grow.
        let errors = parallel(options.threads, 2, |which| {
            let learner = [Learner::Boost, Learner::Forest][which];
            let of_learner = FitOptions { learner, ..*options };
            let estimator = training_set.fit(
                &training_set.subset(Subset::Outside(0), options.seed),
                &of_learner,
            );
            let unseen = (0..training_set.samples.len()).filter(|&at| training_set.folds[at] == 0);
            let error = |at: usize| {
                (training_set.samples[at].time_s.ln() - training_set.estimate(&estimator, at).log_time).abs()
            };
            (unseen.map(error).sum::<f64>(), learner)
        });
        let best = errors
            .into_iter()
            .min_by(|left, right| left.0.total_cmp(&right.0));
        let learner = best.map_or(options.learner, |(_, learner)| learner);
        Self::fit_with(data, &FitOptions { learner, ..*options })
    }
}
