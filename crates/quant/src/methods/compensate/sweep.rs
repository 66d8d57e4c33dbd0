//! A pass over all blocks of columns in which each block sees how the error grows with its weights, given what all
//! others lose at that moment.

use dualgrain_device::Statistics;
use dualgrain_threads::Pool;

use crate::error::QuantError;
use crate::methods::compensate::block::Block;
use crate::methods::compensate::factor::gathered;
use crate::methods::compensate::ordered::lanes_of;
use crate::methods::compensate::product::product;
use crate::methods::compensate::rows::bundle::Bundle;
use crate::methods::compensate::rows::lanes::{LANES, Lanes};
use crate::methods::compensate::rows::tile::Tile;

/// A block with its part of the Gram matrix.
pub struct SweptBlock<'a> {
    /// The columns.
    pub block: &'a Block,
    /// Their part of the Gram matrix, [len, len].
    pub gram: Vec<f32>,
}

/// Lets `change` change the codes of every block in every bundle. It is given the product of the rows' errors and the Gram
/// matrix at the block's columns, lanes of [len]: half of what a small step up of a weight takes from the objective.
///
/// # Errors
/// The device failed.
pub fn sweep<D: Statistics, P: Sync>(
    (device, pool): (&D, &Pool),
    gram: &[f32],
    blocks: &[Block],
    tile: &mut Tile,
    prepare: impl Fn(&SweptBlock<'_>) -> P,
    change: impl Fn(&mut Bundle, &SweptBlock<'_>, &P, Vec<Lanes>) + Sync,
) -> Result<(), QuantError> {
    let k = tile.k;
    let mut residual = tile.residual(pool);
    for block in blocks {
        let len = block.columns.len();
        let slopes = product(device, &residual, rows_of(gram, &block.columns, k), k)?;
        let swept = SweptBlock {
            block,
            gram: gathered(gram, &block.columns, &block.columns),
        };
        let prepared = prepare(&swept);
        pool.for_each_chunk(&mut tile.bundles, 1, |idx, bundle| {
            let slopes = slopes.chunks(LANES * len).nth(idx).unwrap_or_default();
            change(&mut bundle[0], &swept, &prepared, lanes_of(slopes, len));
        });
        let bundles = &tile.bundles;
        pool.for_each_chunk(&mut residual, LANES * k, |idx, rows| {
            bundles[idx].update_residual(block.group, &block.columns, rows);
        });
    }
    Ok(())
}

/// Whole rows of a matrix `[K,K]`, [rows, K].
pub fn rows_of(gram: &[f32], rows: &[usize], k: usize) -> Vec<f32> {
    let mut chosen = Vec::with_capacity(rows.len() * k);
    rows.iter()
        .for_each(|row| chosen.extend_from_slice(&gram[row * k..][..k]));
    chosen
}
