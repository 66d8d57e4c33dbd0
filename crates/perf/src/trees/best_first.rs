//! Grows one tree of a forest, best split first, from histograms of the bins.

use super::binary::Node;
use super::bins::Bins;
use super::random::Random;

/// Limits of a tree.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Leaves at most.
    pub leaves: usize,
    /// Splits above a leaf at most.
    pub depth: usize,
    /// Rows of a leaf at least.
    pub leaf_rows: usize,
    /// Fraction of the columns that a split looks at.
    pub column_fraction: f64,
}

/// A grown tree.
pub struct Tree {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// `[nodes][outputs]`: means of the targets of a leaf's rows; 0 for inner nodes.
    pub values: Vec<f32>,
    /// How much the splits on each column lessened the squared error.
    pub gains: Vec<f64>,
}

/// A leaf that may still be split: its rows, the sums of their targets, and its best split.
struct Open {
    node: usize,
    depth: usize,
    rows: Vec<u32>,
    histogram: Vec<f32>,
    split: Option<Split>,
}

#[derive(Clone, Copy)]
struct Split {
    gain: f64,
    column: usize,
    bin: usize,
}

/// Grows trees on binned rows and their targets.
pub struct BestFirstGrower<'a> {
    /// Binned features.
    pub bins: &'a Bins,
    /// `[rows][outputs]`.
    pub targets: &'a [f32],
    /// Targets of a row.
    pub outputs: usize,
    /// Of each column: the place of its first bin in a histogram.
    offsets: Vec<usize>,
}

impl<'a> BestFirstGrower<'a> {
    /// A grower for targets `[rows][outputs]` over binned rows.
    pub fn new(bins: &'a Bins, targets: &'a [f32], outputs: usize) -> Self {
        let mut offsets = vec![0];
        for column in 0..bins.width() {
            offsets.push(offsets[column] + bins.num_bins(column));
        }
        Self {
            bins,
            targets,
            outputs,
            offsets,
        }
    }

    /// Grows a tree on some rows. A row may occur more than once.
    pub fn grow(&self, rows: Vec<u32>, limits: &Limits, random: &mut Random) -> Tree {
        let mut tree = Tree {
            nodes: vec![Node::leaf(0)],
            values: Vec::new(),
            gains: vec![0.0; self.bins.width()],
        };
        let mut open = vec![self.root(rows, limits, random)];
        let mut closed = Vec::new();
        while open.len() + closed.len() < limits.leaves {
            let Some(at) = most_gain(&open) else { break };
            let parent = open.swap_remove(at);
            let Some(split) = parent.split else {
                closed.push(parent);
                continue;
            };
            tree.gains[split.column] += split.gain;
            for mut child in self.divide(parent, split, &mut tree.nodes) {
                child.split = self.best_split(&child, limits, random);
                open.push(child);
            }
        }
        closed.append(&mut open);
        self.finish(tree, closed)
    }

    /// The root of a tree, which holds all rows.
    fn root(&self, rows: Vec<u32>, limits: &Limits, random: &mut Random) -> Open {
        let mut root = Open {
            node: 0,
            depth: 0,
            histogram: self.histogram(&rows),
            rows,
            split: None,
        };
        root.split = self.best_split(&root, limits, random);
        root
    }

    /// The numbers of a bin: its rows, then the sum of each output.
    fn stride(&self) -> usize {
        1 + self.outputs
    }

    /// Of each bin of each column: the rows and the sums of their targets.
    fn histogram(&self, rows: &[u32]) -> Vec<f32> {
        let stride = self.stride();
        let mut histogram = vec![0.0f32; self.offsets[self.bins.width()] * stride];
        for &row in rows {
            let row = row as usize;
            let codes = self.bins.row(row);
            if self.outputs == 1 {
                let target = self.targets[row];
                for (offset, &code) in self.offsets.iter().zip(codes) {
                    let at = 2 * (offset + usize::from(code));
                    histogram[at] += 1.0;
                    histogram[at + 1] += target;
                }
                continue;
            }
            let targets = &self.targets[row * self.outputs..(row + 1) * self.outputs];
            for (offset, &code) in self.offsets.iter().zip(codes) {
                let at = stride * (offset + usize::from(code));
                histogram[at] += 1.0;
                for (sum, target) in histogram[at + 1..at + stride].iter_mut().zip(targets) {
                    *sum += target;
                }
            }
        }
        histogram
    }

    fn best_split(&self, open: &Open, limits: &Limits, random: &mut Random) -> Option<Split> {
        if open.depth >= limits.depth || open.rows.len() < 2 * limits.leaf_rows {
            return None;
        }
        let width = self.bins.width();
        let columns = random.sample(width, fraction_of(width, limits.column_fraction));
        let found = columns
            .iter()
            .filter_map(|&column| self.best_of_column(open, column, limits));
        found.max_by(|left, right| left.gain.total_cmp(&right.gain))
    }

    fn best_of_column(&self, open: &Open, column: usize, limits: &Limits) -> Option<Split> {
        let stride = self.stride();
        let range = self.offsets[column] * stride..self.offsets[column + 1] * stride;
        let bins = &open.histogram[range];
        let all = sums(bins, stride);
        let whole = score(&all);
        let (mut left, mut right) = (vec![0.0f64; stride], all.clone());
        let mut best: Option<Split> = None;
        let last = bins.len() / stride - 1;
        for (bin, counted) in bins.chunks_exact(stride).take(last).enumerate() {
            for (at, &value) in counted.iter().enumerate() {
                left[at] += f64::from(value);
                right[at] = all[at] - left[at];
            }
            let rows = limits.leaf_rows as f64;
            if counted[0] == 0.0 || left[0] < rows || right[0] < rows {
                continue;
            }
            let gain = score(&left) + score(&right) - whole;
            if gain > 1e-9 && best.is_none_or(|best| gain > best.gain) {
                best = Some(Split { gain, column, bin });
            }
        }
        best
    }

    /// The two children of a node. The histogram of the larger child is the parent's less the smaller child's.
    fn divide(&self, parent: Open, split: Split, nodes: &mut Vec<Node>) -> [Open; 2] {
        let left_node = nodes.len();
        nodes[parent.node] = Node {
            threshold: self.bins.border(split.column, split.bin),
            feature: split.column as u16,
            left: left_node as u16,
        };
        nodes.push(Node::leaf(left_node as u16));
        nodes.push(Node::leaf(left_node as u16 + 1));
        let goes_left = |&row: &u32| usize::from(self.bins.row(row as usize)[split.column]) <= split.bin;
        let (left, right): (Vec<u32>, Vec<u32>) = parent.rows.iter().partition(|row| goes_left(row));
        let smaller_is_left = left.len() <= right.len();
        let smaller = self.histogram(if smaller_is_left { &left } else { &right });
        let mut larger = parent.histogram;
        for (sum, taken) in larger.iter_mut().zip(&smaller) {
            *sum -= taken;
        }
        let (left_histogram, right_histogram) = match smaller_is_left {
            true => (smaller, larger),
            false => (larger, smaller),
        };
        let child = |node, rows, histogram| Open {
            node,
            depth: parent.depth + 1,
            rows,
            histogram,
            split: None,
        };
        [
            child(left_node, left, left_histogram),
            child(left_node + 1, right, right_histogram),
        ]
    }

    /// The tree with the means of its leaves.
    fn finish(&self, mut tree: Tree, closed: Vec<Open>) -> Tree {
        tree.values = vec![0.0; tree.nodes.len() * self.outputs];
        for leaf in closed {
            for output in 0..self.outputs {
                let targets = leaf.rows.iter();
                let sum: f64 = targets
                    .map(|&row| f64::from(self.targets[row as usize * self.outputs + output]))
                    .sum();
                let mean = sum / (leaf.rows.len() as f64).max(1.0);
                tree.values[leaf.node * self.outputs + output] = mean as f32;
            }
        }
        tree
    }
}

fn most_gain(open: &[Open]) -> Option<usize> {
    let gains = open.iter().enumerate();
    let splits = gains.filter_map(|(at, open)| Some((at, open.split?.gain)));
    splits
        .max_by(|left, right| left.1.total_cmp(&right.1))
        .map(|(at, _)| at)
}

fn fraction_of(count: usize, fraction: f64) -> usize {
    ((count as f64 * fraction).ceil() as usize).clamp(1, count.max(1))
}

/// The sums of the numbers of all bins.
fn sums(bins: &[f32], stride: usize) -> Vec<f64> {
    let mut sums = vec![0.0f64; stride];
    for bin in bins.chunks_exact(stride) {
        let pairs = sums.iter_mut().zip(bin);
        pairs.for_each(|(sum, &value)| *sum += f64::from(value));
    }
    sums
}

/// What the means of some rows explain of their targets' squares: of each output the square of the sum over the rows.
fn score(sums: &[f64]) -> f64 {
    let squares: f64 = sums[1..].iter().map(|sum| sum * sum).sum();
    squares / sums[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trees::bins::Table;

    #[test]
    fn tree_finds_the_one_column_and_place_that_matter() {
        let mut table = Table::new(3);
        let mut random = Random::new(1, 1);
        let mut targets = Vec::new();
        for _ in 0..400 {
            let row = [(); 3].map(|()| random.below(100) as f32);
            table.push(&row);
            targets.push(if row[1] > 36.0 { 5.0 } else { -1.0 });
        }
        let bins = Bins::new(&table, 64);
        let limits = Limits {
            leaves: 2,
            depth: 4,
            leaf_rows: 1,
            column_fraction: 1.0,
        };
        let tree = BestFirstGrower::new(&bins, &targets, 1).grow((0..400).collect(), &limits, &mut random);
        assert_eq!(tree.nodes[0].feature, 1);
        assert!((35.0..=37.0).contains(&tree.nodes[0].threshold));
        assert_eq!(tree.values, [0.0, -1.0, 5.0]);
        assert!(tree.gains[1] > 0.0 && tree.gains[0] == 0.0);
    }
}
