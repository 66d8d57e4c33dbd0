//! Sixteen rows of a linear on the dual-grained grid, while their codes still change.

use dualgrain_format::{GroupSize, QuantizedLinear, int4};

use crate::methods::compensate::rows::lanes::{LANES, LaneGrid, Lanes};

/// Rows of a linear and their codes; rows that a bundle lacks are zero.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Float weights, lanes of `[K]`.
    pub weights: Vec<Lanes>,
    /// `q - zero`, lanes of `[K]`.
    pub steps: Vec<Lanes>,
    /// Channel scales.
    pub s1: Lanes,
    /// Group scales, lanes of `[groups]`.
    pub s2: Vec<[u8; LANES]>,
    /// Zero points, lanes of `[groups]`.
    pub zero: Vec<[u8; LANES]>,
}

impl Bundle {
    /// Rows `first..first + LANES` of `linear`, as far as there are any, with their float `weights` [rows, K].
    pub fn new(weights: &[f32], linear: &QuantizedLinear, first: usize) -> Self {
        let (k, groups) = (linear.k(), linear.num_groups());
        let mut bundle = Self {
            weights: vec![[0.0; LANES]; k],
            steps: vec![[0.0; LANES]; k],
            s1: [0.0; LANES],
            s2: vec![[1; LANES]; groups],
            zero: vec![[0; LANES]; groups],
        };
        for (lane, row) in weights.chunks_exact(k).enumerate() {
            let (zeros, s2) = (linear.zero_row(first + lane), linear.s2_row(first + lane));
            bundle.s1[lane] = linear.s1()[first + lane];
            for (group, &s2) in s2.iter().enumerate() {
                bundle.zero[group][lane] = int4::at(zeros, group);
                bundle.s2[group][lane] = s2;
            }
            bundle.set_row(lane, row, linear, first + lane);
        }
        bundle
    }

    fn set_row(&mut self, lane: usize, weights: &[f32], linear: &QuantizedLinear, row: usize) {
        let (k, group_size) = (weights.len(), linear.group_size());
        let codes = linear.q_row(row);
        for (group, zero) in self.zero.iter().enumerate() {
            for column in group_size.range(group, k) {
                self.weights[column][lane] = weights[column];
                let zero = f32::from(zero[lane]);
                self.steps[column][lane] = f32::from(int4::at(codes, column)) - zero;
            }
        }
    }

    /// The grid of a group.
    pub fn grid(&self, group: usize) -> LaneGrid {
        LaneGrid::new(&self.s1, &self.s2[group], &self.zero[group])
    }

    /// The integers `s2 * (q - zero)` of its rows [rows, K], exact in f32.
    pub fn write_w8(&self, group_size: GroupSize, rows: &mut [f32]) {
        let k = self.weights.len();
        for (lane, row) in rows.chunks_exact_mut(k).enumerate() {
            for (group, s2) in self.s2.iter().enumerate() {
                let scale = f32::from(s2[lane]);
                for column in group_size.range(group, k) {
                    row[column] = scale * self.steps[column][lane];
                }
            }
        }
    }

    /// What rounding has lost of its rows [rows, K], from the integers that are stored.
    pub fn write_residual(&self, group_size: GroupSize, rows: &mut [f32]) {
        let k = self.weights.len();
        self.write_w8(group_size, rows);
        for (lane, row) in rows.chunks_exact_mut(k).enumerate() {
            for (value, weights) in row.iter_mut().zip(&self.weights) {
                *value = weights[lane] - self.s1[lane] * *value;
            }
        }
    }

    /// As [`Self::write_residual`], of some columns of one group.
    pub fn update_residual(&self, group: usize, columns: &[usize], rows: &mut [f32]) {
        let k = self.weights.len();
        for (lane, row) in rows.chunks_exact_mut(k).enumerate() {
            let scale = f32::from(self.s2[group][lane]);
            for &column in columns {
                let w8 = scale * self.steps[column][lane];
                row[column] = self.weights[column][lane] - self.s1[lane] * w8;
            }
        }
    }

    /// Takes scales and codes of one row from `other`.
    pub fn take_row(&mut self, other: &Self, lane: usize) {
        self.s1[lane] = other.s1[lane];
        for (own, other) in self.steps.iter_mut().zip(&other.steps) {
            own[lane] = other[lane];
        }
        for (own, other) in self.s2.iter_mut().zip(&other.s2) {
            own[lane] = other[lane];
        }
        for (own, other) in self.zero.iter_mut().zip(&other.zero) {
            own[lane] = other[lane];
        }
    }
}
