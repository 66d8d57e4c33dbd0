//! The vectorized, batched search against the same formulas written plainly in f64.

use dualgrain_cpu::CpuDevice;
use dualgrain_device::{ActivationScale, Device, Gram};
use dualgrain_format::{GroupSize, LinearWeights, QuantizedLinear};
use dualgrain_quant::methods::dgq::candidates::{
    NUM_CHANNEL_RATIOS, NUM_GROUP_RATIOS, channel_ratio, group_ratio,
};
use dualgrain_quant::methods::dgq::channel_search::best_of;
use dualgrain_quant::methods::dgq::group_search::search_groups;
use dualgrain_quant::methods::group_scale::GroupScale;
use dualgrain_quant::methods::grouped_row::GroupedRow;
use dualgrain_quant::methods::method::{FloatRows, LinearTask, MethodReport, Resources};
use dualgrain_quant::methods::output_error::output_error;
use dualgrain_quant::{InputStatistics, Meter, Monitor, Observation, Search};

/// Equal objectives may differ by the rounding of f32 sums.
const TOLERANCE: f64 = 1e-5;

/// A small generator with a fixed seed: uniform in -1..1.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// Rows that break careless code: zeros, one sign, one spike, a dead group, tiny and huge values, plain ones.
fn hostile_rows(k: usize) -> Vec<f32> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut rows = vec![0.0; k];
    let mut push = |f: &mut dyn FnMut(usize) -> f32| rows.extend((0..k).map(f));
    push(&mut |_| random.next().abs() + 0.5);
    push(&mut |_| -random.next().abs() - 0.5);
    push(&mut |j| if j == k / 2 { 40.0 } else { 0.01 * random.next() });
    push(&mut |j| if j < 32 { 0.0 } else { random.next() });
    push(&mut |_| 1e-20 * random.next());
    push(&mut |_| 1e12 * random.next());
    push(&mut |_| f32::from_bits(random.next().to_bits() & 0xff));
    for _ in 0..6 {
        push(&mut |_| random.next() * random.next() * random.next());
    }
    rows
}

/// Inputs with a mean, an outlier channel and dead channels.
fn hostile_inputs(k: usize) -> InputStatistics {
    let mut random = Random(77);
    let x: Vec<f32> = (0..200 * k)
        .map(|i| match i % k {
            3 => 30.0 * random.next(),
            5 | 6 => 0.0,
            j => random.next() + 0.3 * (j % 4) as f32,
        })
        .collect();
    let device = device(1);
    let mut matrix = device.matrix(200, k).unwrap();
    device.upload(&mut matrix, &x).unwrap();
    let mut observation = Observation::new(&device, k).unwrap();
    observation.add(&matrix, 0, 1).unwrap();
    observation.finish(0, "qkv").unwrap()
}

fn device(threads: usize) -> CpuDevice {
    CpuDevice::new(threads).unwrap()
}

/// What `search` makes of the rows `weights`.
fn quantized(
    device: &CpuDevice,
    weights: &[f32],
    statistics: &InputStatistics,
    group_size: GroupSize,
    search: Search,
) -> (QuantizedLinear, MethodReport) {
    let task = LinearTask {
        rows: FloatRows {
            weights,
            k: statistics.maxima.len(),
            bias: None,
        },
        statistics,
        group_size,
        activations: ActivationScale::PerToken,
    };
    let resources = Resources {
        device,
        pool: device.pool(),
        meter: &Meter::new(Monitor::silent(), 0),
    };
    match search.method().quantize(&resources, &task).unwrap() {
        (LinearWeights::W4(linear), report) => (linear, report),
        (other, _) => panic!("not 4-bit: {other:?}"),
    }
}

fn symmetric(gram: &Gram, i: usize, j: usize) -> f64 {
    f64::from(gram.values()[i.max(j) * gram.k() + i.min(j)])
}

/// `e * gram * e^T` over the columns from `first`.
fn quadratic(gram: &Gram, first: usize, errors: &[f64]) -> f64 {
    let row = |i: usize| -> f64 {
        let terms = errors.iter().enumerate();
        terms
            .map(|(j, e)| symmetric(gram, first + i, first + j) * e)
            .sum()
    };
    errors.iter().enumerate().map(|(i, e)| e * row(i)).sum()
}

/// The error of `weights` on the grid of `scale`, zero point `zero` and guard `limit`.
fn plain_errors(weights: &[f32], scale: f32, zero: u8, limit: f64) -> Vec<f64> {
    let (scale, zero) = (f64::from(scale), f64::from(zero));
    let error = |&w: &f32| {
        if scale < 1e-30 {
            return f64::from(w);
        }
        let low = (zero - limit).max(0.0);
        let high = (zero + limit).min(15.0);
        let code = ((f64::from(w) / scale).round_ties_even() + zero).clamp(low, high);
        f64::from(w) - scale * (code - zero)
    };
    weights.iter().map(error).collect()
}

#[test]
fn phase_one_finds_the_best_of_its_twenty_ratios_on_hostile_rows() {
    let (k, size) = (72, GroupSize::Along(32));
    let (rows, gram) = (hostile_rows(k), hostile_inputs(k).gram);
    let blocks = diagonal_blocks(&gram, size);
    let device = device(2);
    let machine = (&device, &**device.pool());
    let choices = search_groups(machine, &rows, k, size, &blocks.iter().collect::<Vec<_>>()).unwrap();
    for (row, choices) in rows.chunks(k).zip(choices.chunks(3)) {
        for (group, choice) in choices.iter().enumerate() {
            let columns = size.range(group, k);
            let weights = &row[columns.clone()];
            let objective = |scale: f32, zero: u8| {
                quadratic(&gram, columns.start, &plain_errors(weights, scale, zero, 15.0))
            };
            let min = weights.iter().fold(0.0_f32, |m, &w| m.min(w));
            let max = weights.iter().fold(0.0_f32, |m, &w| m.max(w));
            let best = (0..NUM_GROUP_RATIOS)
                .map(|index| {
                    let scale = (max - min) * group_ratio(index) / 15.0;
                    let zero = (f64::from(-min) * 15.0 / (f64::from(max) - f64::from(min)).max(1e-300))
                        .round_ties_even();
                    objective(scale, zero as u8)
                })
                .fold(f64::INFINITY, f64::min);
            let found = objective(choice.scale, choice.zero);
            assert!(
                found <= best * (1.0 + TOLERANCE) + f64::MIN_POSITIVE,
                "{found} > {best}"
            );
        }
    }
}

#[test]
fn phase_two_finds_the_best_of_its_eighty_ratios_on_hostile_rows() {
    let (k, size) = (72, GroupSize::Along(32));
    let (rows, gram) = (hostile_rows(k), hostile_inputs(k).gram);
    let device = device(2);
    let machine = (&device, &**device.pool());
    let choices = search_groups(
        machine,
        &rows,
        k,
        size,
        &diagonal_blocks(&gram, size).iter().collect::<Vec<_>>(),
    )
    .unwrap();
    let all: Vec<u8> = (0..NUM_CHANNEL_RATIOS as u8).collect();
    for (row, groups) in rows.chunks(k).zip(choices.chunks(3)) {
        let found = best_of(machine, &&gram, &[GroupedRow::new(row, groups, size)], &all).unwrap()[0];
        let largest = row.iter().fold(0.0_f32, |m, w| m.max(w.abs()));
        let best = all
            .iter()
            .map(|&index| {
                plain_row_objective(
                    &gram,
                    row,
                    groups,
                    size,
                    largest / 127.0 * channel_ratio(index.into()),
                )
            })
            .fold(f64::INFINITY, f64::min);
        let difference = (found.objective - best).abs();
        assert!(
            difference <= best * TOLERANCE + f64::MIN_POSITIVE,
            "{} for {best}",
            found.objective
        );
    }
}

fn plain_row_objective(gram: &Gram, row: &[f32], groups: &[GroupScale], size: GroupSize, s1: f32) -> f64 {
    let errors = groups.iter().enumerate().flat_map(|(group, choice)| {
        let s2 = if s1 > 0.0 {
            (f64::from(choice.scale) / f64::from(s1))
                .round_ties_even()
                .clamp(1.0, 127.0)
        } else {
            1.0
        };
        let limit = (127.0 / s2).floor();
        let clipped = row[size.range(group, row.len())]
            .iter()
            .map(|w| w.clamp(-127.0 * s1, 127.0 * s1));
        let rounded = plain_errors(
            &clipped.clone().collect::<Vec<_>>(),
            s2 as f32 * s1,
            choice.zero,
            limit,
        );
        let lost = row[size.range(group, row.len())]
            .iter()
            .zip(clipped)
            .map(|(w, c)| f64::from(*w) - f64::from(c));
        rounded
            .into_iter()
            .zip(lost.collect::<Vec<_>>())
            .map(|(e, l)| e + l)
            .collect::<Vec<_>>()
    });
    quadratic(gram, 0, &errors.collect::<Vec<_>>())
}

fn diagonal_blocks(gram: &Gram, size: GroupSize) -> Vec<Gram> {
    let block = |group: usize| {
        let columns = size.range(group, gram.k());
        let mut block = Gram::new(columns.len());
        for (i, row) in columns.clone().enumerate() {
            for (j, column) in columns.clone().enumerate().take(i + 1) {
                block.values_mut()[i * columns.len() + j] = gram.values()[row * gram.k() + column];
            }
        }
        block
    };
    (0..size.num_groups(gram.k())).map(block).collect()
}

#[test]
fn every_search_and_group_size_gives_a_valid_layer_with_the_error_it_reports() {
    let k = 136;
    let (rows, inputs) = (hostile_rows(k), hostile_inputs(k));
    let device = device(2);
    for size in [
        GroupSize::Along(32),
        GroupSize::Along(64),
        GroupSize::Along(128),
        GroupSize::WholeRow,
    ] {
        let mut errors = Vec::new();
        for search in [Search::Exhaustive, Search::TwoPhase, Search::Rtn] {
            let (linear, report) = quantized(&device, &rows, &inputs, size, search);
            let stored = output_error(&device, &inputs.gram, &rows, &linear).unwrap();
            assert!(
                (stored - report.error).abs() <= 1e-4 * report.error,
                "{size} {search}: {stored}, {}",
                report.error
            );
            errors.push(report.error);
        }
        assert!(errors[0] <= errors[1] * (1.0 + TOLERANCE), "{size}: {errors:?}");
        assert!(errors[1] <= errors[2] * (1.0 + TOLERANCE), "{size}: {errors:?}");
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let k = 200;
    let (rows, inputs) = (hostile_rows(k), hostile_inputs(k));
    let run = |threads| {
        quantized(
            &device(threads),
            &rows,
            &inputs,
            GroupSize::Along(64),
            Search::TwoPhase,
        )
    };
    let alone = run(1);
    assert_eq!(run(2), alone);
    assert_eq!(run(5), alone);
}

#[test]
fn a_starved_layer_is_rounded_by_its_weights_alone() {
    let k = 64;
    let rows = hostile_rows(k);
    let inputs = Observation::new(&device(1), k).unwrap().finish(0, "qkv").unwrap();
    let (linear, report) = quantized(&device(1), &rows, &inputs, GroupSize::Along(32), Search::TwoPhase);
    assert_eq!(linear.n(), rows.len() / k);
    assert!(report.nmse().is_finite());
}

#[test]
fn slices_of_a_linear_join_to_what_the_whole_gives() {
    let (k, size) = (96, GroupSize::Along(32));
    let (rows, inputs, device) = (hostile_rows(k), hostile_inputs(k), device(2));
    for search in [Search::TwoPhase, Search::Rtn] {
        let (whole, _) = quantized(&device, &rows, &inputs, size, search);
        let slices = rows.chunks(4 * k);
        let slices: Vec<_> = slices
            .map(|rows| quantized(&device, rows, &inputs, size, search).0)
            .collect();
        assert_eq!(QuantizedLinear::join(&slices).unwrap(), whole);
    }
}
