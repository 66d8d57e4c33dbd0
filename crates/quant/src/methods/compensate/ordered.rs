//! Column after column, loud groups first: each error moves the weights of the columns to come. When a group is reached,
//! its scale and zero point are chosen again, now that its weights have moved.

use dualgrain_device::Statistics;
use dualgrain_threads::Pool;

use crate::error::QuantError;
use crate::methods::compensate::block::Block;
use crate::methods::compensate::factor::{BlockFactor, OrderedFactor};
use crate::methods::compensate::product::{leading_columns, product};
use crate::methods::compensate::rows::bundle::Bundle;
use crate::methods::compensate::rows::lanes::{LANES, Lanes};
use crate::methods::compensate::rows::rounding::{CANDIDATES, Targets, round_on_best_grid};
use crate::methods::compensate::rows::tile::Tile;

/// Gives all rows of `tile` new codes, and new group scales and zero points near those they have.
///
/// # Errors
/// The device failed.
pub fn round_in_order<D: Statistics>(
    (device, pool): (&D, &Pool),
    factor: &OrderedFactor,
    blocks: &[Block],
    tile: &mut Tile,
) -> Result<(), QuantError> {
    let k = tile.k;
    // In the order of the columns, as far as they are rounded.
    let mut errors = vec![0.0; tile.num_rows * k];
    let mut start = 0;
    for block in blocks {
        let len = block.columns.len();
        let end = start + len;
        let moved = match start {
            0 => vec![0.0; tile.num_rows * len],
            _ => {
                let earlier = leading_columns(&errors, k, start);
                product(device, &earlier, factor.shares_of_earlier(start, end), start)?
            }
        };
        let own = factor.block(start, end);
        pool.for_each_chunk(&mut tile.bundles, 1, |idx, bundle| {
            let moved = moved.chunks(LANES * len).nth(idx).unwrap_or_default();
            round_block(&mut bundle[0], block, &own, &lanes_of(moved, len));
        });
        let bundles = &tile.bundles;
        pool.for_each_chunk(&mut errors, LANES * k, |idx, rows| {
            write_errors(&bundles[idx], block, start, rows);
        });
        start = end;
    }
    Ok(())
}

/// Rows [rows, len] of at most a bundle as lanes of [len].
pub fn lanes_of(rows: &[f32], len: usize) -> Vec<Lanes> {
    let mut lanes = vec![[0.0; LANES]; len];
    for (lane, row) in rows.chunks_exact(len).enumerate() {
        for (values, &value) in lanes.iter_mut().zip(row) {
            values[lane] = value;
        }
    }
    lanes
}

fn round_block(bundle: &mut Bundle, block: &Block, factor: &BlockFactor, moved: &[Lanes]) {
    let weights: Vec<Lanes> = block
        .columns
        .iter()
        .map(|&column| bundle.weights[column])
        .collect();
    let candidates = if block.new_grid {
        &CANDIDATES[..]
    } else {
        &CANDIDATES[..1]
    };
    let targets = Targets {
        weights: &weights,
        moved,
    };
    let scales = (&bundle.s2[block.group], &bundle.zero[block.group]);
    let rounding = round_on_best_grid(targets, factor, &bundle.s1, scales, candidates);
    for (&column, steps) in block.columns.iter().zip(rounding.steps) {
        bundle.steps[column] = steps;
    }
    (bundle.s2[block.group], bundle.zero[block.group]) = (rounding.s2, rounding.zero);
}

/// Puts the errors of a block where its columns stand in the order.
fn write_errors(bundle: &Bundle, block: &Block, start: usize, rows: &mut [f32]) {
    let (k, grid) = (bundle.weights.len(), bundle.grid(block.group));
    for (lane, row) in rows.chunks_exact_mut(k).enumerate() {
        for (error, &column) in row[start..].iter_mut().zip(&block.columns) {
            *error = bundle.weights[column][lane] - grid.step[lane] * bundle.steps[column][lane];
        }
    }
}
