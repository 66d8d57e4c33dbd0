//! A row of float weights with the float scales of its groups: what is left to choose is its channel scale, which turns
//! the group scales into integers.

use dualgrain_format::GroupSize;

use crate::methods::group_scale::GroupScale;
use crate::methods::quantization_grid::{QuantizationGrid, abs_max};

/// A row whose groups have float scales.
#[derive(Debug, Clone, Copy)]
pub struct GroupedRow<'a> {
    weights: &'a [f32],
    groups: &'a [GroupScale],
    group_size: GroupSize,
    largest: f32,
}

impl<'a> GroupedRow<'a> {
    /// A row `[K]` with the scales of its groups `[groups]`.
    pub fn new(weights: &'a [f32], groups: &'a [GroupScale], group_size: GroupSize) -> Self {
        Self {
            weights,
            groups,
            group_size,
            largest: abs_max(weights),
        }
    }

    /// The rows of a linear: `weights` `[N,K]` with `groups` [N, groups].
    pub fn all(weights: &'a [f32], k: usize, groups: &'a [GroupScale], group_size: GroupSize) -> Vec<Self> {
        let rows = weights
            .chunks_exact(k)
            .zip(groups.chunks_exact(group_size.num_groups(k)));
        rows.map(|(weights, groups)| Self::new(weights, groups, group_size))
            .collect()
    }

    /// K.
    pub fn k(&self) -> usize {
        self.weights.len()
    }

    /// Weights that share a group scale.
    pub fn group_size(&self) -> GroupSize {
        self.group_size
    }

    /// Groups of the row.
    pub fn num_groups(&self) -> usize {
        self.groups.len()
    }

    /// The channel scale that covers `ratio` of the row's range; 0 for a row of zeros.
    pub fn s1(&self, ratio: f32) -> f32 {
        self.largest / 127.0 * ratio
    }

    /// The channel scale without a search: the whole range of the row, or the scale of its only group.
    pub fn whole_s1(&self) -> f32 {
        match self.group_size {
            GroupSize::WholeRow => self.groups[0].scale,
            GroupSize::Along(_) => self.s1(1.0),
        }
    }

    /// The integer scale of a group under channel scale `s1`: 1..=127.
    pub fn s2(&self, group: usize, s1: f32) -> u8 {
        if s1 <= 0.0 {
            return 1;
        }
        let steps = f64::from(self.groups[group].scale) / f64::from(s1);
        steps.round_ties_even().clamp(1.0, 127.0) as u8
    }

    /// The zero point of a group.
    pub fn zero(&self, group: usize) -> u8 {
        self.groups[group].zero
    }

    /// The weights of a group.
    pub fn slice(&self, group: usize) -> &'a [f32] {
        &self.weights[self.group_size.range(group, self.weights.len())]
    }

    /// The grid a group is rounded to under channel scale `s1`; the int8 guard is kept, and clipping the weights to
    /// `127 * s1` beforehand would change nothing.
    pub fn grid(&self, group: usize, s1: f32) -> QuantizationGrid {
        let s2 = self.s2(group, s1);
        QuantizationGrid::new(f32::from(s2) * s1, self.zero(group), 127 / s2)
    }

    /// The errors `[K]` under channel scale `s1`.
    pub fn errors(&self, s1: f32, errors: &mut [f32]) {
        for group in 0..self.groups.len() {
            let columns = self.group_size.range(group, self.weights.len());
            self.grid(group, s1)
                .errors(self.slice(group), &mut errors[columns]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_zeros_gets_scale_zero_and_the_zero_code() {
        let groups = [GroupScale { scale: 0.0, zero: 0 }];
        let row = GroupedRow::new(&[0.0; 4], &groups, GroupSize::Along(32));
        assert_eq!((row.s1(1.0), row.s2(0, 0.0)), (0.0, 1));
        let mut errors = [1.0; 4];
        row.errors(0.0, &mut errors);
        assert_eq!(errors, [0.0; 4]);
    }

    #[test]
    fn clipping_to_the_int8_range_is_already_in_the_guard() {
        let groups = [GroupScale { scale: 0.5, zero: 4 }];
        let weights = [-2.0, -1.0, 0.1, 1.0, 7.0];
        let row = GroupedRow::new(&weights, &groups, GroupSize::Along(32));
        let s1 = row.s1(0.2);
        let clipped = weights.map(|w: f32| w.clamp(-127.0 * s1, 127.0 * s1));
        let (mut codes, mut clipped_codes) = ([0; 5], [0; 5]);
        row.grid(0, s1).codes(4, &weights, &mut codes);
        row.grid(0, s1).codes(4, &clipped, &mut clipped_codes);
        assert_eq!(codes, clipped_codes);
    }
}
