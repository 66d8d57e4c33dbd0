//! Calibrates prediction intervals, split-conformal over folds of shapes: the local width is learned from the errors on
//! unseen shapes, then scaled so that the promised share of them falls inside.

use crate::predict::{COVERAGE, FeatureRow, NAMES, WidthModel, quantile};
use crate::trees::{BoostOptions, Table, boost};

/// Residuals below this say nothing: measurements repeat no better.
const LEAST_RESIDUAL: f64 = 0.003;

/// Fewer residuals of a kernel than this are scaled as all are.
const OWN_SCALE_ROWS: usize = 100;

/// A residual on a shape that was not learned from: `ln(measured / predicted)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Residual {
    /// Features of the prediction.
    pub features: FeatureRow,
    /// Logarithm of measured over predicted.
    pub value: f64,
    /// Fold of its shape.
    pub fold: usize,
    /// Number of its kernel.
    pub kernel: usize,
}

/// A residual with the local width that the residuals of other folds give it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WidthSample {
    /// Logarithm of measured over predicted.
    pub value: f64,
    /// The local width.
    pub local: f64,
    /// Fold of its shape.
    pub fold: usize,
    /// Number of its kernel.
    pub kernel: usize,
}

/// A width model for predictions to come, and for each residual the half width that the other folds give it.
pub(crate) fn calibrate(
    residuals: &[Residual],
    num_folds: usize,
    num_kernels: usize,
    seed: u64,
) -> (WidthModel, Vec<f64>) {
    let mut samples: Vec<WidthSample> = residuals
        .iter()
        .map(|residual| WidthSample {
            value: residual.value,
            local: 0.0,
            fold: residual.fold,
            kernel: residual.kernel,
        })
        .collect();
    for fold in 0..num_folds {
        let others: Vec<Residual> = residuals.iter().filter(|r| r.fold != fold).copied().collect();
        let width_model = WidthModel::fit(&others, seed);
        for (residual, sample) in residuals.iter().zip(&mut samples) {
            if residual.fold == fold {
                sample.local = width_model.unscaled(&residual.features);
            }
        }
    }
    let mut width_model = WidthModel::fit(residuals, seed);
    width_model.scales = scales(samples.iter(), num_kernels);
    (width_model, widths(&samples, num_folds, num_kernels))
}

/// Half widths: local spreads by the scale that the other folds need.
pub(crate) fn widths(samples: &[WidthSample], num_folds: usize, num_kernels: usize) -> Vec<f64> {
    let scales: Vec<Vec<f64>> = (0..num_folds)
        .map(|fold| scales(samples.iter().filter(|other| other.fold != fold), num_kernels))
        .collect();
    samples
        .iter()
        .map(|one| one.local * scales[one.fold][one.kernel])
        .collect()
}

/// Of each kernel, the factor of local spreads that [`COVERAGE`] of its residuals lie within; of all residuals where it has
/// few.
pub(crate) fn scales<'a>(
    samples: impl Iterator<Item = &'a WidthSample> + Clone,
    num_kernels: usize,
) -> Vec<f64> {
    let of = |wanted: &dyn Fn(usize) -> bool| -> Vec<f64> {
        let wanted = samples.clone().filter(|one| wanted(one.kernel));
        wanted.map(|one| one.value.abs() / one.local).collect()
    };
    let all = quantile(of(&|_| true), COVERAGE).unwrap_or(1.0);
    let of_kernel = |number: usize| {
        let own = of(&|kernel| kernel == number);
        match own.len() {
            ..OWN_SCALE_ROWS => all,
            _ => quantile(own, COVERAGE).unwrap_or(all),
        }
    };
    (0..num_kernels).map(of_kernel).collect()
}

impl WidthModel {
    /// Learns the local size of residuals; the scales are set apart.
    pub fn fit(residuals: &[Residual], seed: u64) -> Self {
        let mut table = Table::new(NAMES.len());
        let mut targets = Vec::new();
        for residual in residuals {
            table.push(&residual.features[..NAMES.len()]);
            targets.push(residual.value.abs().max(LEAST_RESIDUAL).ln() as f32);
        }
        let how = BoostOptions {
            trees: 16,
            rate: 0.2,
            depth: 5,
            shrinkage: 20.0,
            bins: 32,
            seed,
            ..BoostOptions::USUAL
        };
        Self {
            trees: boost(&table, &targets, &how).0,
            scales: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::WIDTH;
    use crate::trees::Random;

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
            // What no feature tells: the second kernel's residuals are three times as large.
            let of_kernel = if at / 16 % 2 == 0 { 1.0 } else { 3.0 };
            let size = of_kernel * if at % 2 == 0 { 0.01 } else { 0.1 };
            residuals.push(Residual {
                features,
                value: noise * size,
                fold: at / 2 % 5,
                kernel: at / 16 % 2,
            });
        }
        let (width_model, widths) = calibrate(&residuals, 5, 3, 7);
        for kernel in 0..2 {
            let own = || residuals.iter().zip(&widths).filter(|(r, _)| r.kernel == kernel);
            let within = own().filter(|(r, width)| r.value.abs() <= **width).count();
            let coverage = within as f64 / own().count() as f64;
            assert!((0.88..0.92).contains(&coverage), "kernel {kernel}: {coverage}");
        }
        let width = |at: usize| width_model.of(&residuals[at].features, 0);
        assert!(width(1) > 5.0 * width(0), "{} and {}", width(0), width(1));
    }
}
