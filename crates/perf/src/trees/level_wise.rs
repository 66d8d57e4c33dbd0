//! Grows one symmetric tree, level by level: the question of a level is the one that lessens the squared error most over
//! all its nodes, found from histograms of the bins.

use super::bins::Bins;

/// A split: a question in terms of bins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Split {
    /// How much the split lessens the squared error.
    pub gain: f64,
    /// Column.
    pub column: usize,
    /// The last bin whose answer is no.
    pub bin: usize,
}

/// Grows trees on binned rows, of which some columns are looked at.
pub struct LevelWiseGrower<'a> {
    bins: &'a Bins,
    columns: &'a [usize],
    targets: &'a [f32],
    shrinkage: f32,
    /// Of each of these columns: the place of its first bin in a histogram.
    offsets: Vec<usize>,
}

/// Rows and sum of targets of a bin.
type Bin = [f32; 2];

/// The nodes of a level: their rows, node after node, the ends of the nodes among the rows, and their histograms.
struct Level {
    rows: Vec<u32>,
    ends: Vec<usize>,
    /// `[nodes][bins of all drawn columns]`.
    histograms: Vec<Bin>,
}

impl Level {
    fn rows_of(&self, node: usize) -> &[u32] {
        let begin = if node == 0 { 0 } else { self.ends[node - 1] };
        &self.rows[begin..self.ends[node]]
    }
}

impl<'a> LevelWiseGrower<'a> {
    /// A grower for targets over binned rows that looks at some columns.
    pub fn new(bins: &'a Bins, columns: &'a [usize], targets: &'a [f32], shrinkage: f64) -> Self {
        let mut offsets = vec![0];
        for (at, &column) in columns.iter().enumerate() {
            offsets.push(offsets[at] + bins.num_bins(column));
        }
        Self {
            bins,
            columns,
            targets,
            shrinkage: shrinkage as f32,
            offsets,
        }
    }

    /// The splits of a tree over some rows, from the root down; fewer than `depth` where no split helps any more.
    pub fn grow(&self, rows: Vec<u32>, depth: usize) -> Vec<Split> {
        let mut histograms = vec![[0.0; 2]; self.num_bins()];
        self.count(&rows, &mut histograms);
        let ends = vec![rows.len()];
        let mut level = Level {
            rows,
            ends,
            histograms,
        };
        let mut splits = Vec::new();
        while splits.len() < depth {
            let Some(split) = self.best(&level) else { break };
            splits.push(split);
            if splits.len() < depth {
                level = self.divide(&level, split);
            }
        }
        splits
    }

    /// Bins of all columns that are looked at.
    fn num_bins(&self) -> usize {
        self.offsets[self.columns.len()]
    }

    fn count(&self, rows: &[u32], histogram: &mut [Bin]) {
        for &row in rows {
            let codes = self.bins.row(row as usize);
            let target = self.targets[row as usize];
            for (&column, &offset) in self.columns.iter().zip(&self.offsets) {
                let bin = &mut histogram[offset + usize::from(codes[column])];
                bin[0] += 1.0;
                bin[1] += target;
            }
        }
    }

    fn best(&self, level: &Level) -> Option<Split> {
        let mut best: Option<Split> = None;
        let mut scores = [0.0f32; 256];
        for (at, &column) in self.columns.iter().enumerate() {
            let (begin, end) = (self.offsets[at], self.offsets[at + 1]);
            let scores = &mut scores[..end - begin];
            scores.fill(0.0);
            for histogram in level.histograms.chunks_exact(self.num_bins()) {
                self.add_scores(&histogram[begin..end], scores);
            }
            // The last bin's "no" is everybody's: the score of not asking.
            let (Some(&whole), places) = (scores.last(), &scores[..scores.len() - 1]) else {
                continue;
            };
            for (bin, score) in places.iter().enumerate() {
                let gain = f64::from(score - whole);
                if gain > 1e-9 && best.is_none_or(|best| gain > best.gain) {
                    best = Some(Split { gain, column, bin });
                }
            }
        }
        best
    }

    /// Adds to the score of each bin what a split behind it explains of the squared error: the squares of the means of both sides.
    fn add_scores(&self, bins: &[Bin], scores: &mut [f32]) {
        let all = bins
            .iter()
            .fold([0.0; 2], |sum, bin| [sum[0] + bin[0], sum[1] + bin[1]]);
        if all[0] < 1.0 {
            return;
        }
        let mut left = [0.0f32; 2];
        for (bin, score) in bins.iter().zip(scores) {
            left = [left[0] + bin[0], left[1] + bin[1]];
            let right = [all[0] - left[0], all[1] - left[1]];
            let (no, yes) = (left[0] + self.shrinkage, right[0] + self.shrinkage);
            // One division for both sides.
            *score += (left[1] * left[1] * yes + right[1] * right[1] * no) / (no * yes);
        }
    }

    /// The next level. The histogram of the larger of two children is the parent's less the smaller child's.
    fn divide(&self, parent: &Level, split: Split) -> Level {
        let num_bins = self.num_bins();
        let mut child = Level {
            rows: Vec::with_capacity(parent.rows.len()),
            ends: Vec::with_capacity(2 * parent.ends.len()),
            histograms: vec![[0.0; 2]; 2 * parent.histograms.len()],
        };
        let yes = |row: &u32| usize::from(self.bins.row(*row as usize)[split.column]) > split.bin;
        let histograms = child.histograms.chunks_exact_mut(2 * num_bins);
        for (node, (of_parent, pair)) in parent
            .histograms
            .chunks_exact(num_bins)
            .zip(histograms)
            .enumerate()
        {
            let rows = parent.rows_of(node);
            let begin = child.rows.len();
            child.rows.extend(rows.iter().filter(|row| !yes(row)));
            let middle = child.rows.len();
            child.rows.extend(rows.iter().filter(|row| yes(row)));
            child.ends.extend([middle, child.rows.len()]);
            let (no, yes) = (&child.rows[begin..middle], &child.rows[middle..]);
            let (left, right) = pair.split_at_mut(num_bins);
            let (few, smaller, larger) = match no.len() <= yes.len() {
                true => (no, left, right),
                false => (yes, right, left),
            };
            self.count(few, smaller);
            for ((larger, parent), smaller) in larger.iter_mut().zip(of_parent).zip(smaller.iter()) {
                *larger = [parent[0] - smaller[0], parent[1] - smaller[1]];
            }
        }
        child
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trees::bins::Table;
    use crate::trees::random::Random;

    #[test]
    fn tree_asks_for_what_matters_and_then_for_what_matters_on_both_sides() {
        let mut table = Table::new(3);
        let mut random = Random::new(1, 1);
        let mut targets = Vec::new();
        for _ in 0..800 {
            let row = [(); 3].map(|()| random.below(100) as f32);
            table.push(&row);
            let side = if row[1] > 36.0 { 5.0 } else { -1.0 };
            targets.push(side + if row[2] > 70.0 { 0.5 } else { 0.0 });
        }
        let bins = Bins::new(&table, 64);
        let grower = LevelWiseGrower::new(&bins, &[0, 1, 2], &targets, 1.0);
        let splits = grower.grow((0..800).collect(), 2);
        let borders: Vec<(usize, f32)> = splits
            .iter()
            .map(|split| (split.column, bins.border(split.column, split.bin)))
            .collect();
        assert_eq!((borders[0].0, borders[1].0), (1, 2));
        assert!((34.0..=38.0).contains(&borders[0].1) && (68.0..=72.0).contains(&borders[1].1));
        assert!(splits[0].gain > 20.0 * splits[1].gain);
    }

    #[test]
    fn nothing_is_asked_where_nothing_differs() {
        let mut table = Table::new(1);
        (0..50).for_each(|row| table.push(&[row as f32]));
        let bins = Bins::new(&table, 16);
        assert_eq!(
            LevelWiseGrower::new(&bins, &[0], &[0.0; 50], 1.0).grow((0..50).collect(), 6),
            []
        );
    }
}
