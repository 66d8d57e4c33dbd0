//! The Gram matrix as a product that says how much of an error each later column takes over.
//!
//! With `H = U D U^T`, U unit upper triangular, the error of a row is `sum of D_j y_j^2` with `y = e U`: a column's own
//! error plus what the errors of the columns before it leave there. So a column is rounded to what is nearest to its
//! weight plus `sum over i < j of e_i U_ij`, and `D_j` says what a miss costs. This is the ordered rounding of OPTQ
//! (arXiv 2210.17323) in the form of QuIP (arXiv 2307.13304), which needs no inverse.

use std::cmp::Ordering;
use std::ops::Range;

use dualgrain_device::{Gram, Statistics};
use dualgrain_threads::Pool;

use crate::error::QuantError;
use crate::methods::compensate::block::Block;
use crate::methods::compensate::product::product;

/// U and D of the columns of one block.
#[derive(Debug, Clone)]
pub struct BlockFactor {
    /// Row j holds `U_ij` of the columns i of the block; those of `i < j` count. [len, len]
    pub shares: Vec<f32>,
    /// `D_j` [len].
    pub costs: Vec<f32>,
}

impl BlockFactor {
    /// That of a symmetric matrix `gram` [len, len]; `floor` is the least that a column's cost can be.
    pub fn new(gram: &[f32], len: usize, floor: f64) -> Self {
        let mut upper: Vec<f64> = gram.iter().map(|&value| f64::from(value)).collect();
        factor_upper(&mut upper, len, floor);
        let mut factor = Self {
            shares: vec![0.0; len * len],
            costs: vec![0.0; len],
        };
        for j in 0..len {
            let root = upper[j * len + j];
            factor.costs[j] = (root * root) as f32;
            for i in 0..j {
                factor.shares[j * len + i] = (upper[i * len + j] / root) as f32;
            }
        }
        factor
    }
}

impl BlockFactor {
    /// `x` of `x U = values`, in its place.
    fn hand_over(&self, values: &mut [f32]) {
        let len = values.len();
        for j in 0..len {
            let shares = &self.shares[j * len..][..j];
            let known: f64 = values[..j]
                .iter()
                .zip(shares)
                .map(|(&x, &share)| f64::from(x) * f64::from(share))
                .sum();
            values[j] = (f64::from(values[j]) - known) as f32;
        }
    }
}

/// U and D of all columns, in the order of their blocks.
pub struct OrderedFactor {
    k: usize,
    /// Row j holds `U_ij` of the columns i before it. `[K,K]`
    shares: Vec<f32>,
    costs: Vec<f32>,
}

impl OrderedFactor {
    /// That of the symmetric matrix `gram` `[K,K]` with its diagonal raised by `damping` times its mean.
    ///
    /// # Errors
    /// The device failed.
    pub fn new<D: Statistics>(
        (device, pool): (&D, &Pool),
        gram: &[f32],
        blocks: &[Block],
        damping: f64,
    ) -> Result<Self, QuantError> {
        let order: Vec<usize> = blocks.iter().flat_map(|block| &block.columns).copied().collect();
        let k = order.len();
        let raised = damping * mean_diagonal(gram, k);
        let mut upper = vec![0.0_f32; k * k];
        let mut end = k;
        for block in blocks.iter().rev() {
            let (len, start) = (block.columns.len(), end - block.columns.len());
            let mut panel = gathered(gram, &order[..end], &block.columns);
            (0..len).for_each(|j| panel[(start + j) * len + j] += raised as f32);
            subtract_later(device, &mut panel, &upper, (k, start, end))?;
            solve_panel(pool, &mut panel, (start, len), raised);
            for (row, values) in panel.chunks_exact(len).enumerate() {
                upper[row * k + start..][..len].copy_from_slice(values);
            }
            end = start;
        }
        Ok(Self::from_upper(upper, k))
    }

    /// Turns `V` of `V V^T = H` (upper triangle) into U (lower triangle, transposed) in its place.
    fn from_upper(mut upper: Vec<f32>, k: usize) -> Self {
        let costs = (0..k).map(|j| upper[j * k + j] * upper[j * k + j]).collect();
        for j in 0..k {
            let inv_root = 1.0 / upper[j * k + j];
            for i in 0..j {
                upper[j * k + i] = upper[i * k + j] * inv_root;
            }
        }
        Self {
            k,
            shares: upper,
            costs,
        }
    }

    /// `X` of `X H = right` `[N,K]`, H damped, its columns in the order of the blocks.
    ///
    /// # Errors
    /// The device failed.
    pub fn solve<D: Statistics>(
        &self,
        (device, pool): (&D, &Pool),
        blocks: &[Block],
        mut right: Vec<f32>,
    ) -> Result<Vec<f32>, QuantError> {
        let k = self.k;
        let mut end = k;
        for block in blocks.iter().rev() {
            let start = end - block.columns.len();
            let upper = self.upper_corner(start, end);
            let known = match end < k {
                false => Vec::new(),
                true => product(
                    device,
                    &columns_of(&right, k, end..k),
                    self.upper_later(start, end),
                    k - end,
                )?,
            };
            pool.for_each_chunk(&mut right, k, |row, values| {
                subtract(&mut values[start..end], &known, row);
                solve_row(&mut values[start..end], &upper);
            });
            end = start;
        }
        for block in blocks {
            let (start, len) = (end, block.columns.len());
            end += len;
            let (own, roots) = (self.block(start, end), &self.costs[start..end]);
            let known = match start {
                0 => Vec::new(),
                _ => product(
                    device,
                    &columns_of(&right, k, 0..start),
                    self.shares_of_earlier(start, end),
                    start,
                )?,
            };
            pool.for_each_chunk(&mut right, k, |row, values| {
                let values = &mut values[start..end];
                values
                    .iter_mut()
                    .zip(roots)
                    .for_each(|(value, cost)| *value /= cost.sqrt());
                subtract(values, &known, row);
                own.hand_over(values);
            });
        }
        Ok(right)
    }

    /// V of the columns from `start` to `end` among themselves.
    fn upper_corner(&self, start: usize, end: usize) -> Vec<f64> {
        let rows = (start..end).flat_map(|row| (start..end).map(move |column| (row, column)));
        rows.map(|(row, column)| match row.cmp(&column) {
            Ordering::Less => f64::from(self.shares[row * self.k + column]),
            Ordering::Equal => f64::from(self.costs[row]).sqrt(),
            Ordering::Greater => 0.0,
        })
        .collect()
    }

    /// V of the rows from `start` to `end` at all columns from `end` on.
    fn upper_later(&self, start: usize, end: usize) -> Vec<f32> {
        columns_of(&self.shares[start * self.k..end * self.k], self.k, end..self.k)
    }

    /// What the columns from `start` to `end` take over from all before `start`: [end - start, start].
    pub fn shares_of_earlier(&self, start: usize, end: usize) -> Vec<f32> {
        columns_of(&self.shares[start * self.k..end * self.k], self.k, 0..start)
    }

    /// The part of the columns from `start` to `end` among themselves.
    pub fn block(&self, start: usize, end: usize) -> BlockFactor {
        BlockFactor {
            shares: columns_of(&self.shares[start * self.k..end * self.k], self.k, start..end),
            costs: self.costs[start..end].to_vec(),
        }
    }
}

/// Some columns of `rows` `[M,K]`.
fn columns_of(rows: &[f32], k: usize, columns: Range<usize>) -> Vec<f32> {
    let mut chosen = Vec::with_capacity(rows.len() / k * columns.len());
    rows.chunks_exact(k)
        .for_each(|row| chosen.extend_from_slice(&row[columns.clone()]));
    chosen
}

/// `values -= ` row `row` of `known`, which may be empty.
fn subtract(values: &mut [f32], known: &[f32], row: usize) {
    let known = known.chunks_exact(values.len()).nth(row).unwrap_or_default();
    values
        .iter_mut()
        .zip(known)
        .for_each(|(value, known)| *value -= known);
}

/// A Gram matrix with both triangles, divided by the mean of its diagonal, and that mean: what is done with it does not
/// depend on the scale of the input then.
pub fn scaled_matrix(gram: &Gram) -> (Vec<f32>, f64) {
    let k = gram.k();
    let mut whole = gram.clone();
    whole.symmetrize();
    let mean = mean_diagonal(whole.values(), k);
    let values = whole.values().iter();
    (
        values.map(|&value| (f64::from(value) / mean) as f32).collect(),
        mean,
    )
}

/// The mean of the diagonal of a matrix `[K,K]`.
pub fn mean_diagonal(gram: &[f32], k: usize) -> f64 {
    (0..k).map(|i| f64::from(gram[i * k + i])).sum::<f64>() / k as f64
}

/// Rows `rows` and columns `columns` of a symmetric matrix, [rows, columns].
pub fn gathered(gram: &[f32], rows: &[usize], columns: &[usize]) -> Vec<f32> {
    let k = gram.len().isqrt();
    let row = |&row: &usize| columns.iter().map(move |&column| gram[row * k + column]);
    rows.iter().flat_map(row).collect()
}

/// Takes from `panel` [end, end - start] what the columns from `end` on explain.
fn subtract_later<D: Statistics>(
    device: &D,
    panel: &mut [f32],
    upper: &[f32],
    (k, start, end): (usize, usize, usize),
) -> Result<(), QuantError> {
    if end == k {
        return Ok(());
    }
    let later = |rows: &[f32]| columns_of(rows, k, end..k);
    let (rows, own) = (later(&upper[..end * k]), later(&upper[start * k..end * k]));
    let explained = product(device, &rows, own, k - end)?;
    panel
        .iter_mut()
        .zip(&explained)
        .for_each(|(value, explained)| *value -= explained);
    Ok(())
}

/// Factors the last `len` rows of `panel` [start + len, len] and solves the rows before them with the factor.
fn solve_panel(pool: &Pool, panel: &mut [f32], (start, len): (usize, usize), floor: f64) {
    let (rows, corner) = panel.split_at_mut(start * len);
    let mut upper: Vec<f64> = corner.iter().map(|&value| f64::from(value)).collect();
    factor_upper(&mut upper, len, floor);
    for (value, &upper) in corner.iter_mut().zip(&upper) {
        *value = upper as f32;
    }
    pool.for_each_chunk(rows, len, |_, row| solve_row(row, &upper));
}

/// `x` of `x V^T = row`, in its place; V upper triangular [len, len].
fn solve_row(row: &mut [f32], upper: &[f64]) {
    let len = row.len();
    let mut solved = vec![0.0_f64; len];
    for j in (0..len).rev() {
        let factor = &upper[j * len..][..len];
        let known: f64 = solved[j + 1..]
            .iter()
            .zip(&factor[j + 1..])
            .map(|(x, v)| x * v)
            .sum();
        solved[j] = (f64::from(row[j]) - known) / factor[j];
    }
    row.iter_mut()
        .zip(&solved)
        .for_each(|(x, &solved)| *x = solved as f32);
}

/// V of `V V^T = matrix`, upper triangular, in the place of a symmetric matrix [len, len]. What a column has of its own is
/// at least `floor`: rounding can take it below that, a damped matrix cannot.
fn factor_upper(matrix: &mut [f64], len: usize, floor: f64) {
    let floor = floor.max(f64::MIN_POSITIVE.sqrt());
    for j in (0..len).rev() {
        for i in (0..=j).rev() {
            let (row, own) = (&matrix[i * len..][..len], &matrix[j * len..][..len]);
            let known: f64 = row[j + 1..].iter().zip(&own[j + 1..]).map(|(a, b)| a * b).sum();
            let left = row[j] - known;
            matrix[i * len + j] = if i == j {
                left.max(floor).sqrt()
            } else {
                left / own[j]
            };
        }
        matrix[j * len..j * len + j].fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_gives_the_matrix_back() {
        let gram = [4.0, 2.0, 0.5, 2.0, 5.0, 1.0, 0.5, 1.0, 3.0];
        let factor = BlockFactor::new(&gram, 3, 0.0);
        let share = |i: usize, j: usize| match i.cmp(&j) {
            std::cmp::Ordering::Less => factor.shares[j * 3 + i],
            std::cmp::Ordering::Equal => 1.0,
            std::cmp::Ordering::Greater => 0.0,
        };
        for i in 0..3 {
            for j in 0..3 {
                let value: f32 = (0..3).map(|l| share(i, l) * factor.costs[l] * share(j, l)).sum();
                assert!((value - gram[i * 3 + j]).abs() < 1e-5, "{i} {j}: {value}");
            }
        }
    }

    #[test]
    fn a_matrix_without_rank_is_held_up_by_the_floor() {
        let factor = BlockFactor::new(&[1.0; 9], 3, 1e-3);
        assert!(factor.costs.iter().all(|&cost| cost >= 0.99e-3));
        assert!(factor.shares.iter().all(|share| share.is_finite()));
        let silent = BlockFactor::new(&[0.0; 4], 2, 0.0);
        assert!(
            silent
                .shares
                .iter()
                .chain(&silent.costs)
                .all(|value| value.is_finite())
        );
    }
}
