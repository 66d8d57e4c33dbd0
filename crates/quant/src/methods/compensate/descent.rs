//! Coordinate descent: every code in turn takes the value that is best while all others stay. It never makes a row worse.

use dualgrain_device::Statistics;
use dualgrain_threads::Pool;

use crate::error::QuantError;
use crate::methods::compensate::block::Block;
use crate::methods::compensate::rows::bundle::Bundle;
use crate::methods::compensate::rows::lanes::{Lanes, add_scaled, minus, times};
use crate::methods::compensate::rows::tile::Tile;
use crate::methods::compensate::sweep::{SweptBlock, sweep};

/// One pass over all codes of `tile`.
///
/// # Errors
/// The device failed.
pub fn descend<D: Statistics>(
    machine: (&D, &Pool),
    gram: &[f32],
    blocks: &[Block],
    tile: &mut Tile,
) -> Result<(), QuantError> {
    let change =
        |bundle: &mut Bundle, swept: &SweptBlock<'_>, _: &(), slopes| descend_block(bundle, swept, slopes);
    sweep(machine, gram, blocks, tile, |_| (), change)
}

fn descend_block(bundle: &mut Bundle, swept: &SweptBlock<'_>, mut slopes: Vec<Lanes>) {
    let (columns, grid) = (&swept.block.columns, bundle.grid(swept.block.group));
    for (j, &column) in columns.iter().enumerate() {
        let row = &swept.gram[j * columns.len()..][..columns.len()];
        let (done, later) = slopes.split_at_mut(j + 1);
        let steps = &mut bundle.steps[column];
        let mut wished = times(steps, &grid.step);
        add_scaled(&mut wished, 1.0 / row[j], &done[j]);
        let new = grid.nearest(&wished);
        if new == *steps {
            continue;
        }
        let moved: Lanes = times(&minus(&new, steps), &grid.step);
        *steps = new;
        for (slopes, &gram) in later.iter_mut().zip(&row[j + 1..]) {
            add_scaled(slopes, -gram, &moved);
        }
    }
}
