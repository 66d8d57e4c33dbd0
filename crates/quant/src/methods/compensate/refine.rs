//! What every beginning goes through: scales fitted, groups chosen anew, single codes changed, until little is left to gain.

use dualgrain_device::Statistics;
use dualgrain_threads::Pool;

use crate::error::QuantError;
use crate::methods::ablation::{Ablation, Step};
use crate::methods::compensate::block::Block;
use crate::methods::compensate::channel_scale::fit_channel_scales;
use crate::methods::compensate::descent::descend;
use crate::methods::compensate::regroup::regroup;
use crate::methods::compensate::rows::tile::Tile;

/// Passes over all groups.
pub const REGROUP_SWEEPS: usize = 1;

/// Passes over all codes.
pub const DESCENT_SWEEPS: usize = 2;

/// Passes over the Gram matrix that a row takes, each as many multiply-adds as the matrix has elements.
pub const PASSES: usize = 2 * (REGROUP_SWEEPS + DESCENT_SWEEPS) + 1;

/// Improves the codes and scales of `tile` from where they are, by the steps that `ablation` leaves.
///
/// # Errors
/// The device failed.
pub fn refine<D: Statistics>(
    machine: (&D, &Pool),
    gram: &[f32],
    blocks: &[Block],
    tile: &mut Tile,
    ablation: Ablation,
) -> Result<(), QuantError> {
    let fit = |tile: &mut Tile| match ablation.has(Step::ScaleFits) {
        true => fit_channel_scales(machine, gram, blocks, tile),
        false => Ok(()),
    };
    for _ in 0..REGROUP_SWEEPS {
        fit(tile)?;
        regroup(machine, gram, blocks, tile)?;
    }
    let descents = if ablation.has(Step::Descent) {
        DESCENT_SWEEPS
    } else {
        0
    };
    for _ in 0..descents {
        fit(tile)?;
        descend(machine, gram, blocks, tile)?;
    }
    fit(tile)
}
