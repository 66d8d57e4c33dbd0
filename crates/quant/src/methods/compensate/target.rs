//! Weights that make up for what was lost before them.
//!
//! A linear sees `x` where the original model has `y`. The weights `W'` that bring `W' x` nearest to `W y` are
//! `W + W (sum of (y - x) x^T) (H + damping)^-1`. Where the output is added to the residual stream, what the stream lacks by then
//! counts as well. Both are learned from the calibration text, so they need much of it: with few windows they do harm.

use dualgrain_device::Statistics;
use dualgrain_format::GroupSize;
use dualgrain_threads::Pool;

use crate::calibrate::drift::{Drift, Lacking};
use crate::error::QuantError;
use crate::methods::compensate::block::blocks_in_place;
use crate::methods::compensate::factor::{OrderedFactor, scaled_matrix};
use crate::methods::compensate::product::product;
use crate::transposed::transposed;

/// By what the diagonal of the Gram matrix is raised, by its mean.
const DAMPING: f64 = 0.05;

/// Moves `weights` `[N,K]` to where they make up for the drift of their input.
///
/// # Errors
/// The device failed.
pub fn correct_weights<D: Statistics>(
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
        Lacking::Stream(sums) => transposed(pool, sums, k),
    };
    lost.iter_mut()
        .for_each(|value| *value = (f64::from(*value) / mean) as f32);
    // Nothing is rounded here: one group of all columns, in the blocks that the factor takes.
    let blocks = blocks_in_place(k, GroupSize::WholeRow);
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
