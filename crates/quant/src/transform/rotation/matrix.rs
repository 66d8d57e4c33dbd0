//! Rows and columns of a weight matrix changed one by one: in f64, each by itself, so that no number of threads changes a bit.

use dualgrain_threads::Pool;
use half::bf16;

use crate::transposed::{transpose, transposed};

/// Changes every row of `matrix` `[N,k]`.
pub fn change_rows(pool: &Pool, matrix: &mut [f32], k: usize, change: impl Fn(&mut [f64]) + Sync) {
    pool.for_each_chunk(matrix, k, |_, row| change_row(row, &change));
}

/// Changes every column of `matrix` `[N,k]`; takes the room of a second matrix meanwhile.
pub fn change_columns(pool: &Pool, matrix: &mut [f32], k: usize, change: impl Fn(&mut [f64]) + Sync) {
    let n = matrix.len() / k;
    let mut columns = transposed(pool, matrix, n);
    change_rows(pool, &mut columns, n, change);
    transpose(pool, &columns, k, matrix);
}

/// Changes one row.
pub fn change_row(row: &mut [f32], change: impl Fn(&mut [f64])) {
    let mut wide: Vec<f64> = row.iter().map(|&value| f64::from(value)).collect();
    change(&mut wide);
    row.iter_mut()
        .zip(wide)
        .for_each(|(value, wide)| *value = wide as f32);
}

/// The nearest halves.
pub fn to_bf16(values: &[f32]) -> Vec<bf16> {
    values.iter().map(|&value| bf16::from_f32(value)).collect()
}
