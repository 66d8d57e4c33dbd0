//! Gradient boosting for squared error: each tree is grown on what the ones before it leave.

use super::grow::{Limits, Soil};
use super::{Bins, Random, Table, Trees};

/// How to boost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Boost {
    /// Trees.
    pub trees: usize,
    /// Share of a tree's answer that is taken.
    pub rate: f64,
    /// Leaves of a tree at most.
    pub leaves: usize,
    /// Splits above a leaf at most.
    pub depth: usize,
    /// Rows of a leaf at least.
    pub leaf_rows: usize,
    /// Share of the rows a tree sees.
    pub row_share: f64,
    /// Share of the columns a tree sees.
    pub column_share: f64,
    /// Rows of nothing that every leaf has besides its own.
    pub shrinkage: f64,
    /// Bins of a column at most.
    pub bins: usize,
    /// Seed.
    pub seed: u64,
}

impl Default for Boost {
    fn default() -> Self {
        Self {
            trees: 160,
            rate: 0.11,
            leaves: 32,
            depth: 6,
            leaf_rows: 5,
            row_share: 0.7,
            column_share: 0.6,
            shrinkage: 1.0,
            bins: 128,
            seed: 7,
        }
    }
}

/// Trees whose sum answers for `targets`, and the gain of each column.
pub fn boost(table: &Table, targets: &[f32], how: &Boost) -> (Trees, Vec<f64>) {
    let bins = Bins::new(table, how.bins);
    let num_rows = targets.len();
    let mean = targets.iter().map(|&target| f64::from(target)).sum::<f64>() / num_rows.max(1) as f64;
    let mut trees = Trees::new(vec![mean as f32]);
    let mut gains = vec![0.0; table.width()];
    let mut rest: Vec<f32> = targets.iter().map(|target| target - mean as f32).collect();
    let limits = Limits {
        leaves: how.leaves,
        depth: how.depth,
        leaf_rows: how.leaf_rows,
        column_share: how.column_share,
        draw_each_split: false,
        shrinkage: how.shrinkage,
    };
    for number in 0..how.trees {
        let mut random = Random::new(how.seed, number as u64);
        let seen = (num_rows as f64 * how.row_share).ceil() as usize;
        let rows = random.sample(num_rows, seen);
        let rows = rows.into_iter().map(|row| row as u32).collect();
        let mut tree = Soil::new(&bins, &rest, 1).grow(rows, &limits, &mut random);
        for value in &mut tree.values {
            *value *= how.rate as f32;
        }
        trees.push(&tree.nodes, &tree.values);
        gains
            .iter_mut()
            .zip(&tree.gains)
            .for_each(|(sum, gain)| *sum += gain);
        let last = trees.len() - 1;
        for (row, rest) in rest.iter_mut().enumerate() {
            *rest -= trees.leaf_values(trees.leaf(last, table.row(row)))[0];
        }
    }
    (trees, gains)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boosting_learns_a_curved_surface_and_repeats_itself_to_the_bit() {
        let mut table = Table::new(3);
        let mut targets = Vec::new();
        let mut random = Random::new(3, 0);
        for _ in 0..2_000 {
            let row = [(); 3].map(|()| random.below(1000) as f32 / 1000.0);
            table.push(&row);
            targets.push((6.0 * row[0]).sin() + row[1] * row[1] * 2.0);
        }
        let (trees, gains) = boost(&table, &targets, &Boost::default());
        let error = |row: usize| f64::from((trees.sums(table.row(row))[0] - targets[row]).powi(2));
        let mean = (0..2_000).map(error).sum::<f64>() / 2_000.0;
        assert!(mean < 0.002, "mean squared error {mean}");
        assert!(
            gains[0] > 10.0 * gains[2] && gains[1] > 10.0 * gains[2],
            "{gains:?}"
        );
        assert_eq!(boost(&table, &targets, &Boost::default()).0, trees);
    }
}
