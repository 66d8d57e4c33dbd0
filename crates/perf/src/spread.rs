//! Intervals with a promised coverage: how far predictions on unseen shapes fall from measurements, learned as a local
//! spread, and scaled so that the promised share lies within (split-conformal, over folds of shapes).

use crate::features::{FeatureRow, NAMES};
use crate::learn::{Boost, Table, Trees, boost};
use crate::metric::quantile;
use crate::prediction::COVERAGE;

/// Residuals below this say nothing: measurements repeat no better.
const LEAST_RESIDUAL: f64 = 0.003;
/// Spreads stay within these whatever the trees say: 0.2 % and a factor of e.
const SPREADS: [f64; 2] = [0.002, 1.0];

/// How far off a prediction may be, before it is scaled to a coverage.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spread {
    /// Trees for `ln |residual|`.
    pub trees: Trees,
    /// What its answer is multiplied by so that [`COVERAGE`] of residuals lie within.
    pub scale: f64,
}

/// A residual on a shape that was not learned from: `ln(measured / predicted)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Residual {
    /// Features of the prediction.
    pub features: FeatureRow,
    /// Logarithm of measured over predicted.
    pub value: f64,
    /// Fold of its shape.
    pub fold: usize,
}

impl Spread {
    /// Learns the local size of residuals; the scale is set apart.
    pub fn fit(residuals: &[Residual], seed: u64) -> Self {
        let mut table = Table::new(NAMES.len());
        let mut targets = Vec::new();
        for residual in residuals {
            table.push(&residual.features[..NAMES.len()]);
            targets.push(residual.value.abs().max(LEAST_RESIDUAL).ln() as f32);
        }
        let how = Boost {
            trees: 16,
            rate: 0.2,
            leaves: 16,
            depth: 5,
            leaf_rows: 30,
            shrinkage: 20.0,
            bins: 64,
            seed,
            ..Boost::default()
        };
        Self {
            trees: boost(&table, &targets, &how).0,
            scale: 1.0,
        }
    }

    /// Half the width of an interval, in logarithms.
    pub fn of(&self, features: &FeatureRow) -> f64 {
        self.scale * self.unscaled(features)
    }

    fn unscaled(&self, features: &FeatureRow) -> f64 {
        f64::from(self.trees.sum(features))
            .exp()
            .clamp(SPREADS[0], SPREADS[1])
    }
}

/// A spread for predictions to come, and for each residual the half width that those of the other folds give it.
pub(crate) fn calibrate(residuals: &[Residual], num_folds: usize, seed: u64) -> (Spread, Vec<f64>) {
    let mut local = vec![0.0; residuals.len()];
    for fold in 0..num_folds {
        let others: Vec<Residual> = residuals.iter().filter(|r| r.fold != fold).copied().collect();
        let spread = Spread::fit(&others, seed);
        for (residual, local) in residuals.iter().zip(&mut local) {
            if residual.fold == fold {
                *local = spread.unscaled(&residual.features);
            }
        }
    }
    let values: Vec<f64> = residuals.iter().map(|residual| residual.value).collect();
    let folds: Vec<usize> = residuals.iter().map(|residual| residual.fold).collect();
    let widths = widths(&values, &local, &folds, num_folds);
    let mut spread = Spread::fit(residuals, seed);
    spread.scale = scale(values.iter().zip(&local));
    (spread, widths)
}

/// Half widths: local spreads by the scale that the other folds need.
pub(crate) fn widths(values: &[f64], local: &[f64], folds: &[usize], num_folds: usize) -> Vec<f64> {
    let scales: Vec<f64> = (0..num_folds)
        .map(|fold| {
            let others = values.iter().zip(local).zip(folds).filter(|(_, of)| **of != fold);
            scale(others.map(|(pair, _)| pair))
        })
        .collect();
    local
        .iter()
        .zip(folds)
        .map(|(local, &fold)| local * scales[fold])
        .collect()
}

/// The factor of local spreads that [`COVERAGE`] of residuals lie within.
pub(crate) fn scale<'a>(pairs: impl Iterator<Item = (&'a f64, &'a f64)>) -> f64 {
    let ratios = pairs.map(|(value, local)| value.abs() / local).collect();
    quantile(ratios, COVERAGE).unwrap_or(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::WIDTH;
    use crate::learn::Random;

    #[test]
    fn nine_of_ten_lie_within_and_noisy_places_get_wider_intervals() {
        let mut random = Random::new(11, 0);
        let mut residuals = Vec::new();
        for at in 0..4_000 {
            let mut features = [0.0; WIDTH];
            features[3] = (at % 2) as f32;
            features[5] = random.below(100) as f32;
            let noise = (0..6)
                .map(|_| random.below(1000) as f64 / 500.0 - 1.0)
                .sum::<f64>();
            let size = if at % 2 == 0 { 0.01 } else { 0.1 };
            residuals.push(Residual {
                features,
                value: noise * size,
                fold: at / 2 % 5,
            });
        }
        let (spread, widths) = calibrate(&residuals, 5, 7);
        let within = residuals
            .iter()
            .zip(&widths)
            .filter(|(r, width)| r.value.abs() <= **width)
            .count();
        let coverage = within as f64 / 4_000.0;
        assert!((0.88..0.92).contains(&coverage), "{coverage}");
        let width = |at: usize| spread.of(&residuals[at].features);
        assert!(width(1) > 5.0 * width(0), "{} and {}", width(0), width(1));
    }
}
