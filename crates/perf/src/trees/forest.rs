//! A random forest with several outputs: each tree grows on rows drawn with repetition, and is judged by the rows not
//! drawn.

use super::best_first::{BestFirstGrower, Limits};
use super::binary::BinaryTrees;
use super::bins::{Bins, Table};
use super::parallel::parallel;
use super::random::Random;

/// Options of a forest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ForestOptions {
    /// Trees.
    pub trees: usize,
    /// Splits above a leaf at most.
    pub depth: usize,
    /// Leaves of a tree at most.
    pub leaves: usize,
    /// Rows of a leaf at least.
    pub leaf_rows: usize,
    /// Fraction of the columns that each split looks at.
    pub column_fraction: f64,
    /// Bins of a column at most.
    pub bins: usize,
    /// Seed.
    pub seed: u64,
    /// Threads.
    pub threads: usize,
}

impl Default for ForestOptions {
    fn default() -> Self {
        Self {
            trees: 100,
            depth: 24,
            leaves: 4096,
            leaf_rows: 2,
            column_fraction: 0.4,
            bins: 128,
            seed: 7,
            threads: 1,
        }
    }
}

/// A grown forest.
pub struct GrownForest {
    /// The trees. Their leaves are divided by the number of trees, so that their sum is the mean of the forest.
    pub trees: BinaryTrees,
    /// `[rows][outputs]`: what the trees that have not seen a row predict for it; NaN where every tree has seen it.
    pub out_of_bag: Vec<f32>,
    /// Gain of each column.
    pub gains: Vec<f64>,
}

/// Learns `targets`, `[rows][outputs]`, each output by its own variance. `groups` numbers the group of each row, from 0 without
/// gaps. The rows of a group are drawn together, so that the groups that a tree has not seen are new to it.
pub fn forest(
    table: &Table,
    targets: &[f32],
    outputs: usize,
    groups: &[u32],
    options: &ForestOptions,
) -> GrownForest {
    let bins = Bins::new(table, options.bins);
    let scales = scales(targets, outputs);
    let scaled = scaled(targets, &scales);
    let grower = BestFirstGrower::new(&bins, &scaled, outputs);
    let rows_of_groups = rows_of_groups(groups);
    let grown = parallel(options.threads, options.trees, |number| {
        let mut random = Random::new(options.seed, 1 + number as u64);
        let bag = bag(&rows_of_groups, &mut random);
        let mut tree = grower.grow(bag.clone(), &limits(options), &mut random);
        for (at, value) in tree.values.iter_mut().enumerate() {
            *value *= scales[at % outputs].1 / options.trees as f32;
        }
        (tree, bag)
    });
    let mut trees = BinaryTrees::new(scales.iter().map(|&(mean, _)| mean).collect());
    let mut gains = vec![0.0; table.width()];
    for (tree, _) in &grown {
        trees.push(&tree.nodes, &tree.values);
        gains
            .iter_mut()
            .zip(&tree.gains)
            .for_each(|(sum, gain)| *sum += gain);
    }
    let bags = grown.into_iter().map(|(_, bag)| bag).collect::<Vec<_>>();
    GrownForest {
        out_of_bag: out_of_bag(&trees, table, &bags),
        trees,
        gains,
    }
}

fn limits(options: &ForestOptions) -> Limits {
    Limits {
        leaves: options.leaves,
        depth: options.depth,
        leaf_rows: options.leaf_rows,
        column_fraction: options.column_fraction,
    }
}

/// Targets less their mean, divided by their standard deviation.
fn scaled(targets: &[f32], scales: &[(f32, f32)]) -> Vec<f32> {
    let scale = |(at, target): (usize, &f32)| {
        let (mean, deviation) = scales[at % scales.len()];
        (target - mean) / deviation
    };
    targets.iter().enumerate().map(scale).collect()
}

/// The bag of a tree: as many groups as there are, drawn with repetition, and all their rows in order.
fn bag(rows_of_groups: &[Vec<u32>], random: &mut Random) -> Vec<u32> {
    let drawn = (0..rows_of_groups.len()).map(|_| &rows_of_groups[random.below(rows_of_groups.len())]);
    let mut rows: Vec<u32> = drawn.flatten().copied().collect();
    rows.sort_unstable();
    rows
}

/// The rows of each group.
fn rows_of_groups(groups: &[u32]) -> Vec<Vec<u32>> {
    let count = groups.iter().max().map_or(0, |&last| last as usize + 1);
    let mut rows_of_groups = vec![Vec::new(); count];
    for (row, &group) in groups.iter().enumerate() {
        rows_of_groups[group as usize].push(row as u32);
    }
    rows_of_groups
}

/// Mean and standard deviation of each output.
fn scales(targets: &[f32], outputs: usize) -> Vec<(f32, f32)> {
    let scale = |output: usize| {
        let values = || {
            targets
                .iter()
                .skip(output)
                .step_by(outputs)
                .map(|&value| f64::from(value))
        };
        let count = values().count().max(1) as f64;
        let mean = values().sum::<f64>() / count;
        let variance = values().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        (mean as f32, variance.sqrt().max(1e-12) as f32)
    };
    (0..outputs).map(scale).collect()
}

/// The mean prediction of the trees whose bag does not hold a row.
fn out_of_bag(trees: &BinaryTrees, table: &Table, bags: &[Vec<u32>]) -> Vec<f32> {
    let outputs = trees.outputs();
    let mut sums = vec![0.0f32; table.len() * outputs];
    let mut counts = vec![0usize; table.len()];
    for (tree, bag) in bags.iter().enumerate() {
        let mut bag = bag.iter().copied().peekable();
        for (row, count) in counts.iter_mut().enumerate() {
            let mut seen = false;
            while bag.next_if(|&drawn| drawn as usize <= row).is_some_and(|drawn| {
                seen |= drawn as usize == row;
                true
            }) {}
            if !seen {
                *count += 1;
                let values = trees.leaf_values(trees.leaf(tree, table.row(row)));
                let sums = &mut sums[row * outputs..(row + 1) * outputs];
                sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            }
        }
    }
    let whole = trees.len() as f32;
    let answer = |(at, sum): (usize, f32)| match counts[at / outputs] {
        0 => f32::NAN,
        count => trees.start()[at % outputs] + sum * whole / count as f32,
    };
    sums.into_iter().enumerate().map(answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> (Table, Vec<f32>) {
        let (mut table, mut targets) = (Table::new(4), Vec::new());
        let mut random = Random::new(5, 0);
        for _ in 0..1_500 {
            let row = [(); 4].map(|()| random.below(1000) as f32 / 1000.0);
            table.push(&row);
            targets.extend([row[0] * 3.0 + row[1], 1e6 * (row[2] - 0.5).abs()]);
        }
        (table, targets)
    }

    #[test]
    fn forest_answers_for_outputs_of_any_scale_and_threads_change_nothing() {
        let (table, targets) = data();
        let groups: Vec<u32> = (0..1_500).collect();
        let options = ForestOptions {
            trees: 60,
            ..ForestOptions::default()
        };
        let grown = forest(&table, &targets, 2, &groups, &options);
        for (output, scale) in [(0, 1.0), (1, 1e6)] {
            let error = |row: usize| {
                f64::from((grown.out_of_bag[2 * row + output] - targets[2 * row + output]) / scale)
            };
            let mean = (0..1_500).map(|row| error(row).powi(2)).sum::<f64>() / 1_500.0;
            assert!(mean < 0.02, "output {output}: out-of-bag error {mean}");
        }
        let threaded = forest(
            &table,
            &targets,
            2,
            &groups,
            &ForestOptions {
                threads: 3,
                ..options
            },
        );
        assert_eq!(threaded.trees, grown.trees);
    }

    #[test]
    fn rows_of_a_group_are_drawn_together() {
        let (table, targets) = data();
        let groups: Vec<u32> = (0..1_500).map(|row| row / 10).collect();
        let options = ForestOptions {
            trees: 1,
            ..ForestOptions::default()
        };
        let unseen = forest(&table, &targets, 2, &groups, &options).out_of_bag;
        for group in unseen.chunks_exact(20) {
            assert!(group.iter().all(|value| value.is_nan()) || group.iter().all(|value| value.is_finite()));
        }
    }

    #[test]
    fn rows_a_tree_has_seen_are_not_judged_by_it() {
        let (table, targets) = data();
        let groups: Vec<u32> = (0..1_500).collect();
        let options = ForestOptions {
            trees: 1,
            leaf_rows: 1,
            ..ForestOptions::default()
        };
        let grown = forest(&table, &targets, 2, &groups, &options);
        let unseen = grown
            .out_of_bag
            .iter()
            .step_by(2)
            .filter(|value| value.is_finite())
            .count();
        assert!(
            (400..700).contains(&unseen),
            "about 37 % of 1,500 rows, got {unseen}"
        );
    }
}
