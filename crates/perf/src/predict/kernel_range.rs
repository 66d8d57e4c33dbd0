//! The ranges in which a kernel was measured. A prediction outside them is an extrapolation.

use serde::{Deserialize, Serialize};

use crate::data::Row;
use crate::product::{Layout, Product};

/// A kernel and the ranges in which it was measured, both ends included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct KernelRange {
    /// The name of the kernel.
    pub name: String,
    /// Rows.
    pub num_rows: usize,
    /// Least M, N, K.
    pub least: [usize; 3],
    /// Most M, N, K.
    pub most: [usize; 3],
    /// Most operations.
    pub most_ops: f64,
    /// The layouts that occurred, each with whether alpha was not 1 and beta was not 0.
    pub variants: Vec<(Layout, bool, bool)>,
}

impl KernelRange {
    /// The range of a single row, which is not yet counted.
    pub(crate) fn new(row: &Row) -> Self {
        let sides = [row.m, row.n, row.k];
        Self {
            name: row.kernel.clone(),
            num_rows: 0,
            least: sides,
            most: sides,
            most_ops: 0.0,
            variants: Vec::new(),
        }
    }

    /// Widens the range by a row.
    pub(crate) fn add(&mut self, row: &Row) {
        self.num_rows += 1;
        for (at, side) in [row.m, row.n, row.k].into_iter().enumerate() {
            self.least[at] = self.least[at].min(side);
            self.most[at] = self.most[at].max(side);
        }
        self.most_ops = self.most_ops.max(row.ops());
        let variant = variant(&row.product());
        if !self.variants.contains(&variant) {
            self.variants.push(variant);
        }
    }

    /// Whether a product lies within the range.
    pub(crate) fn holds(&self, product: &Product<'_>) -> bool {
        let sides = [product.m, product.n, product.k];
        let within = sides.iter().zip(self.least.iter().zip(&self.most));
        within
            .into_iter()
            .all(|(side, (least, most))| (least..=most).contains(&side))
            && product.ops() <= self.most_ops
            && self.variants.contains(&variant(product))
    }
}

fn variant(product: &Product<'_>) -> (Layout, bool, bool) {
    (product.layout, product.alpha != 1.0, product.beta != 0.0)
}
