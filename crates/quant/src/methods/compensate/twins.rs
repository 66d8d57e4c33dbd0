//! The fast routines beside plain loops over one row at a time: the same codes, bit for bit, on hostile shapes.

use dualgrain_cpu::CpuDevice;
use dualgrain_device::{ActivationScale, Device, Gram};
use dualgrain_format::{GroupSize, LinearWeights, QuantizedLinear};

use crate::calibrate::statistics::{InputStatistics, Observation};
use crate::methods::compensate::block::{Block, blocks_by_loudness};
use crate::methods::compensate::channel_scale::fit_channel_scales;
use crate::methods::compensate::descent::descend;
use crate::methods::compensate::factor::{OrderedFactor, scaled_matrix};
use crate::methods::compensate::ordered::round_in_order;
use crate::methods::compensate::regroup::regroup;
use crate::methods::compensate::rows::lanes::LANES;
use crate::methods::compensate::rows::rounding::CANDIDATES;
use crate::methods::compensate::rows::tile::Tile;
use crate::methods::method::{FloatRows, LinearTask, Method, Resources};
use crate::methods::rtn::Rtn;
use crate::monitor::{Meter, Monitor};

/// A number in -1..1 that depends on `index` alone.
fn noise(index: usize) -> f32 {
    let mixed = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((mixed ^ (mixed >> 32)) as u32 >> 8) as f32 / (1 << 23) as f32 - 1.0
}

/// Rows that break careless code: zeros, one sign, one spike, a dead group, tiny and huge values; 23 in all.
fn weights(k: usize) -> Vec<f32> {
    let weight = |row: usize, j: usize| {
        let noise = noise(row * k + j);
        match row {
            0 => 0.0,
            1 => noise.abs() + 0.5,
            2 => -noise.abs() - 0.5,
            3 if j == k / 2 => 40.0,
            4 if j < 32 => 0.0,
            5 => 1e-20 * noise,
            6 => 1e9 * noise,
            _ => noise * noise * noise,
        }
    };
    (0..23)
        .flat_map(|row| (0..k).map(move |j| weight(row, j)))
        .collect()
}

/// Inputs with a mean, a constant channel, a loud one, dead ones; of rank `tokens` at most.
fn inputs(device: &CpuDevice, k: usize, tokens: usize) -> InputStatistics {
    let value = |i: usize| match i % k {
        2 => 1.5,
        3 => 30.0 * noise(i),
        5 | 6 => 0.0,
        j => noise(i) + 0.3 * (j % 4) as f32,
    };
    let x: Vec<f32> = (0..tokens * k).map(value).collect();
    let mut matrix = device.matrix(tokens, k).unwrap();
    device.upload(&mut matrix, &x).unwrap();
    let mut observation = Observation::new(device, k).unwrap();
    observation.add(&matrix, 0, 1).unwrap();
    observation.finish(0, "qkv").unwrap()
}

/// A linear rounded to nearest, and what the routines work on.
struct Case {
    device: CpuDevice,
    gram: Gram,
    matrix: Vec<f32>,
    blocks: Vec<Block>,
    weights: Vec<f32>,
    linear: QuantizedLinear,
}

impl Case {
    fn new(k: usize, tokens: usize, group_size: GroupSize) -> Self {
        let device = CpuDevice::new(2).unwrap();
        let (statistics, weights) = (inputs(&device, k, tokens), weights(k));
        let rows = FloatRows {
            weights: &weights,
            k,
            bias: None,
        };
        let task = LinearTask {
            rows,
            statistics: &statistics,
            group_size,
            activations: ActivationScale::PerToken,
        };
        let resources = Resources {
            device: &device,
            pool: device.pool(),
            meter: &Meter::new(Monitor::silent(), 0),
        };
        let (LinearWeights::W4(linear), _) = Rtn.quantize(&resources, &task).unwrap() else {
            panic!("not in four bits");
        };
        let (matrix, _) = scaled_matrix(&statistics.gram);
        Self {
            blocks: blocks_by_loudness(&statistics.gram, group_size),
            gram: statistics.gram,
            matrix,
            device,
            weights,
            linear,
        }
    }

    /// K that groups divide and do not, inputs of full and of low rank, groups of every size.
    fn all() -> Vec<Self> {
        let sizes = [
            GroupSize::Along(32),
            GroupSize::Along(64),
            GroupSize::Along(128),
            GroupSize::WholeRow,
        ];
        let shapes = [(64, 200), (200, 400), (200, 7), (145, 1)];
        let pairs = shapes
            .iter()
            .flat_map(|&(k, tokens)| sizes.map(|size| (k, tokens, size)));
        pairs
            .map(|(k, tokens, size)| Self::new(k, tokens, size))
            .collect()
    }

    fn machine(&self) -> (&CpuDevice, &dualgrain_threads::Pool) {
        (&self.device, self.device.pool())
    }

    fn tile(&self) -> Tile {
        Tile::new(self.device.pool(), &self.weights, &self.linear, 0)
    }

    /// Columns in the order of their blocks.
    fn order(&self) -> Vec<usize> {
        let columns = self.blocks.iter().flat_map(|block| &block.columns);
        columns.copied().collect()
    }

    fn factor(&self, damping: f64) -> OrderedFactor {
        OrderedFactor::new(self.machine(), &self.matrix, &self.blocks, damping).unwrap()
    }

    fn objectives(&self, tile: &Tile) -> Vec<f64> {
        tile.objectives(self.machine(), &self.gram).unwrap()
    }

    /// Exact objectives may rise by the rounding of sums alone.
    fn assert_no_worse(&self, before: &[f64], after: &[f64], what: &str) {
        let mut silent = self.tile();
        for bundle in &mut silent.bundles {
            bundle.s1 = [0.0; LANES];
        }
        let energies = self.objectives(&silent);
        for (row, (before, after)) in before.iter().zip(after).enumerate() {
            let allowed = 1e-3 * before.abs() + 1e-7 * energies[row];
            assert!(
                *after <= before + allowed,
                "{what}, row {row}: {before} to {after}"
            );
        }
    }
}

/// One row on its way, as plain numbers.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    steps: Vec<f32>,
    s2: Vec<u8>,
    zero: Vec<u8>,
}

fn row_of(tile: &Tile, row: usize) -> (Row, Vec<f32>, f32) {
    let (bundle, lane) = (&tile.bundles[row / LANES], row % LANES);
    let taken = Row {
        steps: bundle.steps.iter().map(|steps| steps[lane]).collect(),
        s2: bundle.s2.iter().map(|s2| s2[lane]).collect(),
        zero: bundle.zero.iter().map(|zero| zero[lane]).collect(),
    };
    let weights = bundle.weights.iter().map(|weights| weights[lane]).collect();
    (taken, weights, bundle.s1[lane])
}

/// The step of a grid and the code nearest to `value`.
fn nearest(value: f32, s1: f32, s2: u8, zero: u8) -> (f32, f32) {
    let step = f32::from(s2) * s1;
    if step < 1e-30 {
        return (0.0, 0.0);
    }
    let limit = f32::from(127 / s2);
    let (low, high) = (f32::from(zero).min(limit), f32::from(15 - zero).min(limit));
    (step, (value * (1.0 / step)).round_ties_even().clamp(-low, high))
}

/// What a block costs on a grid, its codes, what they lose, scale and zero point.
type Rounded = (f32, Vec<f32>, Vec<f32>, (u8, u8));

fn plain_ordered(case: &Case, factor: &OrderedFactor, (mut row, weights, s1): (Row, Vec<f32>, f32)) -> Row {
    let (mut errors, mut start) = (Vec::new(), 0);
    for block in &case.blocks {
        let (len, group) = (block.columns.len(), block.group);
        let (own, earlier) = (
            factor.block(start, start + len),
            factor.shares_of_earlier(start, start + len),
        );
        let mut best: Option<Rounded> = None;
        let count = if block.new_grid { CANDIDATES.len() } else { 1 };
        for (by_scale, by_zero) in &CANDIDATES[..count] {
            let s2 = row.s2[group].saturating_add_signed(*by_scale).clamp(1, 127);
            let zero = row.zero[group].saturating_add_signed(*by_zero).min(15);
            let (mut cost, mut steps, mut lost) = (0.0_f32, Vec::new(), Vec::<f32>::new());
            for (j, &column) in block.columns.iter().enumerate() {
                let handed = |sum: f32, i: usize| f32::mul_add(errors[i], earlier[j * start + i], sum);
                let mut target = weights[column] + (0..start).fold(0.0, handed);
                for (i, lost) in lost.iter().enumerate() {
                    target += own.shares[j * len + i] * lost;
                }
                let (step, code) = nearest(target, s1, s2, zero);
                let missed = target - code * step;
                cost += own.costs[j] * (missed * missed);
                steps.push(code);
                lost.push(weights[column] - code * step);
            }
            if best.as_ref().is_none_or(|best| cost < best.0) {
                best = Some((cost, steps, lost, (s2, zero)));
            }
        }
        let (_, steps, lost, scales) = best.unwrap();
        (row.s2[group], row.zero[group]) = scales;
        for (&column, step) in block.columns.iter().zip(steps) {
            row.steps[column] = step;
        }
        errors.extend(lost);
        start += len;
    }
    row
}

fn plain_descent(case: &Case, (mut row, weights, s1): (Row, Vec<f32>, f32)) -> Row {
    let k = weights.len();
    let group_size = case.linear.group_size();
    for block in &case.blocks {
        let scale = f32::from(row.s2[block.group]);
        let mut residual = vec![0.0; k];
        for group in 0..row.s2.len() {
            for column in group_size.range(group, k) {
                residual[column] = weights[column] - s1 * (f32::from(row.s2[group]) * row.steps[column]);
            }
        }
        let product = |&column: &usize| {
            let gram = &case.matrix[column * k..][..k];
            (0..k).fold(0.0_f32, |sum, i| residual[i].mul_add(gram[i], sum))
        };
        let mut slopes: Vec<f32> = block.columns.iter().map(product).collect();
        for (j, &column) in block.columns.iter().enumerate() {
            let gram = |other: usize| case.matrix[column * k + block.columns[other]];
            let step = if scale * s1 < 1e-30 { 0.0 } else { scale * s1 };
            let wished = row.steps[column] * step + (1.0 / gram(j)) * slopes[j];
            let (step, new) = nearest(wished, s1, row.s2[block.group], row.zero[block.group]);
            let moved = (new - row.steps[column]) * step;
            row.steps[column] = new;
            for (later, slope) in slopes.iter_mut().enumerate().skip(j + 1) {
                *slope += -gram(later) * moved;
            }
        }
    }
    row
}

#[test]
fn ordered_rounding_gives_the_codes_of_plain_loops() {
    for case in Case::all() {
        for damping in [0.003, 0.1] {
            let factor = case.factor(damping);
            let mut tile = case.tile();
            let before: Vec<_> = (0..tile.num_rows).map(|row| row_of(&tile, row)).collect();
            round_in_order(case.machine(), &factor, &case.blocks, &mut tile).unwrap();
            for (idx, row) in before.into_iter().enumerate() {
                let expected = plain_ordered(&case, &factor, row);
                assert_eq!(row_of(&tile, idx).0, expected, "row {idx}, K {}", tile.k);
            }
        }
    }
}

#[test]
fn descent_gives_the_codes_of_plain_loops_and_makes_no_row_worse() {
    for case in Case::all() {
        let mut tile = case.tile();
        let (before, objectives) = (tile.clone(), case.objectives(&tile));
        descend(case.machine(), &case.matrix, &case.blocks, &mut tile).unwrap();
        for row in 0..tile.num_rows {
            let expected = plain_descent(&case, row_of(&before, row));
            assert_eq!(row_of(&tile, row).0, expected, "row {row}, K {}", tile.k);
        }
        case.assert_no_worse(&objectives, &case.objectives(&tile), "descent");
    }
}

#[test]
fn groups_and_channel_scales_make_no_row_worse() {
    for case in Case::all() {
        let mut tile = case.tile();
        for _ in 0..2 {
            let start = case.objectives(&tile);
            fit_channel_scales(case.machine(), &case.matrix, &case.blocks, &mut tile).unwrap();
            let fitted = case.objectives(&tile);
            case.assert_no_worse(&start, &fitted, "channel scales");
            regroup(case.machine(), &case.matrix, &case.blocks, &mut tile).unwrap();
            case.assert_no_worse(&fitted, &case.objectives(&tile), "groups");
        }
    }
}

#[test]
fn the_factor_of_all_columns_gives_the_damped_matrix_back() {
    for case in Case::all() {
        let (k, damping) = (case.gram.k(), 0.01);
        let factor = case.factor(damping);
        let order = case.order();
        let whole = factor.block(0, k);
        let share = |i: usize, j: usize| match i.cmp(&j) {
            std::cmp::Ordering::Less => f64::from(whole.shares[j * k + i]),
            std::cmp::Ordering::Equal => 1.0,
            std::cmp::Ordering::Greater => 0.0,
        };
        let loudest = (0..k).fold(0.0, |max: f32, i| max.max(case.matrix[i * k + i]));
        for i in 0..k {
            for j in i..k {
                let terms = (j..k).map(|l| share(i, l) * f64::from(whole.costs[l]) * share(j, l));
                let raised = if i == j { damping } else { 0.0 };
                let expected = f64::from(case.matrix[order[i] * k + order[j]]) + raised;
                let got: f64 = terms.sum();
                assert!(
                    (got - expected).abs() < 1e-5 * f64::from(loudest),
                    "{i} {j}: {got}, {expected}"
                );
            }
        }
    }
}

#[test]
fn solving_undoes_the_damped_matrix() {
    let case = Case::new(200, 400, GroupSize::Along(64));
    let (k, damping) = (200, 0.05);
    let order = case.order();
    let right: Vec<f32> = (0..3 * k).map(noise).collect();
    let solved = case
        .factor(damping)
        .solve(case.machine(), &case.blocks, right.clone())
        .unwrap();
    for (right, solved) in right.chunks_exact(k).zip(solved.chunks_exact(k)) {
        for j in 0..k {
            let gram = |i: usize| f64::from(case.matrix[order[i] * k + order[j]]);
            let sum: f64 = (0..k).map(|i| f64::from(solved[i]) * gram(i)).sum();
            let got = sum + damping * f64::from(solved[j]);
            assert!(
                (got - f64::from(right[j])).abs() < 1e-3,
                "{j}: {got}, {}",
                right[j]
            );
        }
    }
}
