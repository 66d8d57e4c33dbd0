//! How much the Gram matrix is damped before a linear is rounded in order. Without damping a nearly singular matrix hands
//! errors over to columns that a clipped grid can not move; with much of it nothing is handed over. The right amount
//! differs from linear to linear by a factor of a thousand, so some rows are rounded with each and measured.

use dualgrain_device::{Gram, Statistics};
use dualgrain_format::QuantizedLinear;
use dualgrain_threads::Pool;

use crate::error::QuantError;
use crate::methods::compensate::block::Block;
use crate::methods::compensate::factor::OrderedFactor;
use crate::methods::compensate::ordered::round_in_order;
use crate::methods::compensate::rows::tile::Tile;

/// What is tried, by the mean of the diagonal.
pub const DAMPINGS: [f64; 5] = [0.003, 0.01, 0.03, 0.1, 0.3];

/// What is taken where nothing is tried.
pub const USUAL_DAMPING: f64 = 0.01;

/// Rows that are measured, evenly spaced.
pub const SAMPLE_ROWS: usize = 64;

/// The factor of `matrix` (the Gram matrix `gram`, whole and scaled) with the one of `dampings` that leaves the least exact error on
/// a sample of the rows `weights` `[N,K]`, rounded in order from the scales of `linear`.
///
/// # Errors
/// The device failed.
pub fn best_factor<D: Statistics>(
    (device, pool): (&D, &Pool),
    (gram, matrix): (&Gram, &[f32]),
    blocks: &[Block],
    (weights, linear): (&[f32], &QuantizedLinear),
    dampings: &[f64],
) -> Result<OrderedFactor, QuantError> {
    let n = linear.n();
    let count = n.min(SAMPLE_ROWS);
    let rows: Vec<usize> = (0..count).map(|i| i * n / count).collect();
    let sampled: Vec<f32> = rows
        .iter()
        .flat_map(|row| &weights[row * linear.k()..][..linear.k()])
        .copied()
        .collect();
    let sample = Tile::new(pool, &sampled, &linear.select_rows(&rows)?, 0);
    let mut best: Option<((usize, f64), OrderedFactor)> = None;
    for &damping in dampings {
        let factor = OrderedFactor::new((device, pool), matrix, blocks, damping)?;
        let mut tile = sample.clone();
        round_in_order((device, pool), &factor, blocks, &mut tile)?;
        // Rows that overflow are the worst of all; else the others decide.
        let objectives = tile.objectives((device, pool), gram)?;
        let (finite, overflown): (Vec<f64>, Vec<f64>) =
            objectives.iter().partition(|objective| objective.is_finite());
        let error = (overflown.len(), finite.iter().sum());
        if best.as_ref().is_none_or(|(least, _)| error < *least) {
            best = Some((error, factor));
        }
    }
    match best {
        Some((_, factor)) => Ok(factor),
        None => OrderedFactor::new((device, pool), matrix, blocks, USUAL_DAMPING),
    }
}
