//! Phase 1, the fine grain: a float scale and a zero point for every group of a row.
//!
//! Twenty ratios shrink a group's range; the one that leaves the least error in the group's own slice of the layer
//! output wins. That error is the quadratic form of the weight errors with the group's diagonal block of the Gram
//! matrix, so it sees every calibration token and costs the same for any number of them. DGQ, arXiv 2310.04836.

use dualgrain_device::{Device, Gram};
use dualgrain_format::GroupSize;

use crate::methods::quantization_grid::{Grid, zero_range};

/// Candidates of phase 1.
pub const NUM_GROUP_RATIOS: usize = 20;

/// Ratio `index` of phase 1: 1.009 down to 0.80.
pub fn group_ratio(index: usize) -> f32 {
    (1.02 - 0.22 * (index + 1) as f64 / NUM_GROUP_RATIOS as f64) as f32
}

/// What phase 1 decides about one group of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupChoice {
    /// Float scale of the group; 0 for a group of zeros.
    pub scale: f32,
    /// Zero point, 0..=15.
    pub zero: u8,
}

/// The range of a group before it is shrunk.
struct GroupRange {
    /// `(max - min) / 15`.
    scale: f32,
    zero: u8,
}

impl GroupRange {
    /// `zero = round(-min / scale)`: the ratio shrinks both and cancels.
    fn new(weights: &[f32]) -> Self {
        let range = zero_range(weights);
        let width = f64::from(range.end) - f64::from(range.start);
        if width <= 0.0 {
            return Self { scale: 0.0, zero: 0 };
        }
        Self {
            scale: (width / 15.0) as f32,
            zero: (-15.0 * f64::from(range.start) / width).round_ties_even() as u8,
        }
    }

    fn choice(&self, ratio: f32) -> GroupChoice {
        GroupChoice {
            scale: self.scale * ratio,
            zero: self.zero,
        }
    }
}

/// Round to nearest: the whole range of every group, without a search. [rows, groups].
pub fn whole_ranges(weights: &[f32], k: usize, group_size: GroupSize) -> Vec<GroupChoice> {
    let groups = 0..group_size.num_groups(k);
    weights
        .chunks_exact(k)
        .flat_map(|row| {
            groups
                .clone()
                .map(|g| GroupRange::new(&row[group_size.range(g, k)]).choice(1.0))
        })
        .collect()
}

/// Searches the scale of every group of `weights` [rows, k]; `blocks` are the Gram matrix's diagonal blocks.
/// Returns [rows, groups]. Equal objectives keep the larger range.
pub fn search_groups<D: Device>(
    device: &D,
    weights: &[f32],
    k: usize,
    group_size: GroupSize,
    blocks: &[&Gram],
) -> Vec<GroupChoice> {
    let rows = weights.len() / k;
    let mut choices = vec![GroupChoice { scale: 0.0, zero: 0 }; rows * blocks.len()];
    let mut errors = vec![0.0; rows * NUM_GROUP_RATIOS * group_size.len(k)];
    let mut objectives = vec![0.0; rows * NUM_GROUP_RATIOS];
    for (group, gram) in blocks.iter().enumerate() {
        let columns = group_size.range(group, k);
        let errors = &mut errors[..rows * NUM_GROUP_RATIOS * columns.len()];
        let slice = |row: usize| &weights[row * k..][columns.clone()];
        device.for_each_chunk(errors, NUM_GROUP_RATIOS * columns.len(), |row, errors| {
            candidate_errors(slice(row), errors);
        });
        device.quadratic_rows(gram, errors, &mut objectives);
        for (row, objectives) in objectives.chunks_exact(NUM_GROUP_RATIOS).enumerate() {
            let ratio = group_ratio(least(objectives));
            choices[row * blocks.len() + group] = GroupRange::new(slice(row)).choice(ratio);
        }
    }
    choices
}

/// The errors of all ratios of one group, [ratios, len].
fn candidate_errors(weights: &[f32], errors: &mut [f32]) {
    let range = GroupRange::new(weights);
    for (index, errors) in errors.chunks_exact_mut(weights.len()).enumerate() {
        let choice = range.choice(group_ratio(index));
        Grid::new(choice.scale, choice.zero, 15).errors(weights, errors);
    }
}

/// Index of the least objective, the first among equals.
pub fn least(objectives: &[f64]) -> usize {
    let mut best = 0;
    for (index, objective) in objectives.iter().enumerate() {
        if *objective < objectives[best] {
            best = index;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_run_from_slightly_more_than_the_range_to_four_fifths_of_it() {
        assert!((group_ratio(0) - 1.009).abs() < 1e-6);
        assert!((group_ratio(19) - 0.80).abs() < 1e-6);
    }

    #[test]
    fn groups_of_one_sign_keep_their_zero_point_inside_four_bits() {
        let positive = GroupRange::new(&[3.0, 4.0, 5.0]);
        let negative = GroupRange::new(&[-3.0, -4.0, -5.0]);
        assert_eq!((positive.zero, negative.zero), (0, 15));
        assert_eq!(GroupRange::new(&[0.0; 4]).scale, 0.0);
    }

    #[test]
    fn ties_keep_the_first_candidate() {
        assert_eq!(least(&[2.0, 1.0, 1.0]), 1);
        assert_eq!(least(&[f64::NAN, f64::NAN]), 0);
    }
}
