//! Fits a model and judges it twice: on shapes that it has not seen, and, as the paper does, on rows drawn at random, of
//! which it has seen rows of the same shape.

use super::importance;
use super::judgement::judge_folds;
use super::options::{FitOptions, Learner};
use super::scores::{honest_scores, random_scores};
use super::training_set::{Ground, Part};
use crate::data::Dataset;
use crate::error::PerfError;
use crate::predict::{FitReport, Model, Parts, Scores};
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
        let judged = judge_folds(&ground, &fitted, options);
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
