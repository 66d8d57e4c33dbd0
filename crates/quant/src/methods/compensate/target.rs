//! Weights that make up for what was lost before them.
//!
//! A linear sees `x` where the original model has `y`. The weights `W'` that bring `W' x` nearest to `W y` are
//! `W + W (sum of (y - x) x^T) (H + damping)^-1`. Where the output is added to the residual stream, what the stream lacks by then
//! counts as well. Both are learned from the calibration text, so they need much of it: with few windows they do harm.

use dualgrain_device::Device;
use dualgrain_threads::Pool;

use crate::calibrate::drift::{Drift, Lacking};
use crate::error::QuantError;
use crate::methods::compensate::block::Block;
use crate::methods::compensate::factor::{OrderedFactor, scaled_matrix};
use crate::methods::compensate::product::product;

/// By what the diagonal of the Gram matrix is raised, by its mean.
const DAMPING: f64 = 0.05;

/// Columns of a block of the factor.
const BLOCK_COLUMNS: usize = 128;

/// Moves `weights` `[N,K]` to where they make up for the drift of their input.
///
/// # Errors
/// The device failed.
pub fn correct_weights<D: Device>(
    (device, pool): (&D, &Pool),
    weights: &mut [f32],
    drift: &Drift,
) -> Result<(), QuantError> {
    let k = drift.gram.k();
    let (matrix, mean) = scaled_matrix(&drift.gram);
    if mean <= 0.0 {
        return Ok(());
    }
    let mut lost = match &drift.lacking {
        Lacking::Input(sums) => product(device, weights, sums.clone(), k)?,
        Lacking::Stream(sums) => transposed(sums, k),
    };
    lost.iter_mut()
        .for_each(|value| *value = (f64::from(*value) / mean) as f32);
    let blocks: Vec<Block> = natural_blocks(k);
    let factor = OrderedFactor::new((device, pool), &matrix, &blocks, DAMPING)?;
    let moved = factor.solve((device, pool), &blocks, lost)?;
    for (weight, moved) in weights
        .iter_mut()
        .zip(moved)
        .filter(|(_, moved)| moved.is_finite())
    {
        *weight += moved;
    }
    Ok(())
}

/// `sums` `[K,N]` as `[N,K]`.
fn transposed(sums: &[f32], k: usize) -> Vec<f32> {
    let n = sums.len() / k;
    let row = |row: usize| (0..k).map(move |column| sums[column * n + row]);
    (0..n).flat_map(row).collect()
}

fn natural_blocks(k: usize) -> Vec<Block> {
    let starts = (0..k).step_by(BLOCK_COLUMNS);
    let block = |start: usize| Block {
        group: start / BLOCK_COLUMNS,
        new_grid: false,
        columns: (start..(start + BLOCK_COLUMNS).min(k)).collect(),
    };
    starts.map(block).collect()
}
