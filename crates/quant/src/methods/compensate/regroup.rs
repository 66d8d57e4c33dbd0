//! Group by group, all others as they are: scale, zero point and codes anew, kept where the exact objective falls.
//!
//! With everything else fixed, a group's best real weights are those it has plus `H_gg^-1` times the slopes. These are
//! rounded in order on every candidate grid.

use dualgrain_device::Statistics;
use dualgrain_threads::Pool;

use crate::error::QuantError;
use crate::methods::compensate::block::Block;
use crate::methods::compensate::factor::{BlockFactor, mean_diagonal};
use crate::methods::compensate::rows::bundle::Bundle;
use crate::methods::compensate::rows::lanes::{LANES, LaneGrid, Lanes, add_scaled, minus, times};
use crate::methods::compensate::rows::rounding::{CANDIDATES, LaneRounding, Targets, round_on_best_grid};
use crate::methods::compensate::rows::tile::Tile;
use crate::methods::compensate::sweep::{SweptBlock, sweep};

/// The diagonal of a group's part of the Gram matrix is raised by this part of its mean.
const DAMPING: f64 = 1e-3;

/// One pass over all groups of `tile`.
///
/// # Errors
/// The device failed.
pub fn regroup<D: Statistics>(
    machine: (&D, &Pool),
    gram: &[f32],
    blocks: &[Block],
    tile: &mut Tile,
) -> Result<(), QuantError> {
    sweep(machine, gram, blocks, tile, damped_factor, regroup_block)
}

fn damped_factor(swept: &SweptBlock<'_>) -> BlockFactor {
    let len = swept.block.columns.len();
    let raised = DAMPING * mean_diagonal(&swept.gram, len);
    let mut gram = swept.gram.clone();
    (0..len).for_each(|j| gram[j * len + j] += raised as f32);
    BlockFactor::new(&gram, len, raised)
}

fn regroup_block(bundle: &mut Bundle, swept: &SweptBlock<'_>, factor: &BlockFactor, slopes: Vec<Lanes>) {
    let (group, columns) = (swept.block.group, &swept.block.columns);
    let grid = bundle.grid(group);
    let present: Vec<Lanes> = columns
        .iter()
        .map(|&column| times(&bundle.steps[column], &grid.step))
        .collect();
    let mut targets = solved(factor, slopes.clone());
    for (target, present) in targets.iter_mut().zip(&present) {
        add_scaled(target, 1.0, present);
    }
    let candidates = if swept.block.new_grid {
        &CANDIDATES[..]
    } else {
        &CANDIDATES[..1]
    };
    let unmoved = vec![[0.0; LANES]; columns.len()];
    let targets = Targets {
        weights: &targets,
        moved: &unmoved,
    };
    let scales = (&bundle.s2[group], &bundle.zero[group]);
    let rounding = round_on_best_grid(targets, factor, &bundle.s1, scales, candidates);
    let gains = gains(&bundle.s1, &rounding, &present, (&swept.gram, &slopes));
    for lane in (0..LANES).filter(|&lane| gains[lane] > 0.0) {
        bundle.s2[group][lane] = rounding.s2[lane];
        bundle.zero[group][lane] = rounding.zero[lane];
        for (&column, steps) in columns.iter().zip(&rounding.steps) {
            bundle.steps[column][lane] = steps[lane];
        }
    }
}

/// `H^-1 slopes` from `H = U D U^T`.
fn solved(factor: &BlockFactor, mut values: Vec<Lanes>) -> Vec<Lanes> {
    let len = values.len();
    for j in (0..len).rev() {
        let (earlier, own) = values.split_at_mut(j);
        for (value, &share) in earlier.iter_mut().zip(&factor.shares[j * len..]) {
            add_scaled(value, -share, &own[0]);
        }
    }
    for j in 0..len {
        let (earlier, own) = values.split_at_mut(j);
        let mut value = [0.0; LANES];
        add_scaled(&mut value, 1.0 / factor.costs[j], &own[0]);
        for (earlier, &share) in earlier.iter().zip(&factor.shares[j * len..]) {
            add_scaled(&mut value, -share, earlier);
        }
        own[0] = value;
    }
    values
}

/// How far the exact objective of every row falls: `2 d s - d H d` for a change of weights by `d` at slopes `s`.
fn gains(
    s1: &Lanes,
    rounding: &LaneRounding,
    present: &[Lanes],
    (gram, slopes): (&[f32], &[Lanes]),
) -> Lanes {
    let len = present.len();
    let grid = LaneGrid::new(s1, &rounding.s2, &rounding.zero);
    let rounded = rounding.steps.iter().map(|steps| times(steps, &grid.step));
    let changes: Vec<Lanes> = rounded.zip(present).map(|(new, old)| minus(&new, old)).collect();
    let mut gains = [0.0; LANES];
    for (i, (change, slope)) in changes.iter().zip(slopes).enumerate() {
        let mut slope = times(slope, &[2.0; LANES]);
        for (&gram, change) in gram[i * len..].iter().zip(&changes) {
            add_scaled(&mut slope, -gram, change);
        }
        add_scaled(&mut gains, 1.0, &times(change, &slope));
    }
    gains
}
