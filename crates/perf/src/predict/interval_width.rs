//! The width of prediction intervals. Trees predict how far a prediction may be off, and a scale for each kernel makes
//! nine of ten measurements on unseen shapes fall inside.

use super::features::FeatureRow;
use crate::trees::SymmetricTrees;

/// Widths stay within these bounds whatever the trees say: 0.2 % and a factor of e.
const WIDTHS: [f64; 2] = [0.002, 1.0];

/// Predicts how far a prediction may be off.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WidthModel {
    /// Trees for `ln |residual|`.
    pub trees: SymmetricTrees,
    /// Of each kernel: the factor of the trees' answer at which [`COVERAGE`](super::COVERAGE) of the residuals fall inside.
    pub scales: Vec<f64>,
}

impl WidthModel {
    /// Half the width of an interval, as a logarithm.
    pub fn of(&self, features: &FeatureRow, kernel: usize) -> f64 {
        self.scales[kernel] * self.unscaled(features)
    }

    /// The answer of the trees alone.
    pub(crate) fn unscaled(&self, features: &FeatureRow) -> f64 {
        f64::from(self.trees.sum(features))
            .exp()
            .clamp(WIDTHS[0], WIDTHS[1])
    }
}
