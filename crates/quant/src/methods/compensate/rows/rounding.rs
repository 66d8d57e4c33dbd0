//! The innermost loop: the columns of a block rounded in order, for sixteen rows and several grids.

use crate::methods::compensate::factor::BlockFactor;
use crate::methods::compensate::rows::lanes::{LANES, LaneGrid, Lanes, add_scaled, minus, times};

/// How far the candidates of a group lie from its scale and its zero point; the first changes nothing.
pub const CANDIDATES: [(i8, i8); 15] = [
    (0, 0),
    (0, -1),
    (0, 1),
    (-1, 0),
    (-1, -1),
    (-1, 1),
    (1, 0),
    (1, -1),
    (1, 1),
    (-2, 0),
    (-2, -1),
    (-2, 1),
    (2, 0),
    (2, -1),
    (2, 1),
];

/// Codes of a block in every row, on the grid that does best.
#[derive(Debug, Clone)]
pub struct LaneRounding {
    /// `q - zero`, lanes of [len].
    pub steps: Vec<Lanes>,
    /// Group scales.
    pub s2: [u8; LANES],
    /// Zero points.
    pub zero: [u8; LANES],
}

/// What is to be rounded: `weights`, moved by `moved`, what earlier blocks hand over (both lanes of [len]).
#[derive(Debug, Clone, Copy)]
pub struct Targets<'a> {
    /// The weights.
    pub weights: &'a [Lanes],
    /// What they are moved by.
    pub moved: &'a [Lanes],
}

/// Rounds the targets in order on every candidate of the grid of `s1`, `s2`, `zero`; each row keeps the first of those
/// that cost it least.
pub fn round_on_best_grid(
    targets: Targets<'_>,
    factor: &BlockFactor,
    s1: &Lanes,
    (s2, zero): (&[u8; LANES], &[u8; LANES]),
    candidates: &[(i8, i8)],
) -> LaneRounding {
    let len = targets.weights.len();
    let mut best = LaneRounding {
        steps: vec![[0.0; LANES]; len],
        s2: *s2,
        zero: *zero,
    };
    let mut least = [f32::INFINITY; LANES];
    let (mut steps, mut errors) = (vec![[0.0; LANES]; len], vec![[0.0; LANES]; len]);
    for &(by_scale, by_zero) in candidates {
        let s2 = s2.map(|s2| s2.saturating_add_signed(by_scale).clamp(1, 127));
        let zero = zero.map(|zero| zero.saturating_add_signed(by_zero).min(15));
        let grid = LaneGrid::new(s1, &s2, &zero);
        let cost = round_in_order(targets, factor, &grid, (&mut steps, &mut errors));
        let better: [bool; LANES] = std::array::from_fn(|lane| cost[lane] < least[lane]);
        if !better.contains(&true) {
            continue;
        }
        for lane in (0..LANES).filter(|&lane| better[lane]) {
            (least[lane], best.s2[lane], best.zero[lane]) = (cost[lane], s2[lane], zero[lane]);
        }
        for (best, steps) in best.steps.iter_mut().zip(&steps) {
            for lane in 0..LANES {
                best[lane] = if better[lane] { steps[lane] } else { best[lane] };
            }
        }
    }
    best
}

/// Rounds on one grid; returns what it costs every row. `steps` and `errors` are lanes of [len].
fn round_in_order(
    targets: Targets<'_>,
    factor: &BlockFactor,
    grid: &LaneGrid,
    (steps, errors): (&mut [Lanes], &mut [Lanes]),
) -> Lanes {
    let len = targets.weights.len();
    let mut costs = [0.0; LANES];
    for j in 0..len {
        let shares = &factor.shares[j * len..][..j];
        let mut target = targets.weights[j];
        add_scaled(&mut target, 1.0, &targets.moved[j]);
        for (&share, errors) in shares.iter().zip(errors.iter()) {
            add_scaled(&mut target, share, errors);
        }
        steps[j] = grid.nearest(&target);
        let rounded = times(&steps[j], &grid.step);
        errors[j] = minus(&targets.weights[j], &rounded);
        let missed = minus(&target, &rounded);
        add_scaled(&mut costs, factor.costs[j], &times(&missed, &missed));
    }
    costs
}
