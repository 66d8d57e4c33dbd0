//! An ensemble: the trees of a forest or of boosting.

use super::binary::BinaryTrees;
use super::symmetric::SymmetricTrees;

/// The trees of either learner.
#[derive(Debug, Clone, PartialEq)]
pub enum Ensemble {
    /// The trees of a forest.
    Forest(BinaryTrees),
    /// The trees of boosting.
    Boost(SymmetricTrees),
}

impl Ensemble {
    /// The sum for a row of features. `N` is a power of two not below the number of columns.
    pub fn sum<const N: usize>(&self, row: &[f32; N]) -> f32 {
        match self {
            Self::Forest(trees) => trees.sum(row),
            Self::Boost(trees) => trees.sum(row),
        }
    }
}
