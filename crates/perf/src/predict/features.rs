//! The features that the trees learn from and predict by: physical quantities, each a pure function of the call and of
//! the machine's ceilings. Every prediction computes them, so nothing is allocated here.

use super::kernel_config::KernelConfig;
use crate::data::Cut;
use crate::group_number;
use crate::machine::{Machine, MachineKind};
use crate::operands::OperandTypes;
use crate::predict::physics::{BUSIEST, CACHED, Physics, Tile, Tiling};
use crate::product::{Layout, Product};
use crate::roofline::{Roofline, element_bytes};

/// Places of a row of features; a power of two, so that a walk through trees needs no check.
pub(crate) const WIDTH: usize = 64;

/// A row of features.
pub(crate) type FeatureRow = [f32; WIDTH];

/// What the features are called, in their order.
pub(crate) const NAMES: [&str; 61] = [
    "log_m",
    "log_n",
    "log_k",
    "log_ops",
    "log_bytes",
    "log_intensity",
    "log_roofline_s",
    "log_memory_over_compute",
    "log_weight_bytes",
    "log_token_bytes",
    "log_output_bytes",
    "log_tokens_over_cache",
    "log_bytes_over_cache",
    "tile_m",
    "tile_n",
    "tile_k",
    "stages",
    "threads",
    "cluster",
    "split_k",
    "cut",
    "group_size",
    "a_transposed",
    "b_transposed",
    "scaled",
    "accumulated",
    "output_bytes",
    "occupancy",
    "ctas_per_sm",
    "registers",
    "shared_bytes",
    "log_tiles",
    "log_waves",
    "rounds",
    "tail_fraction",
    "efficiency_m",
    "efficiency_n",
    "efficiency_k",
    "tile_efficiency",
    "steps",
    "log_steps_of_busiest",
    "log_busiest_over_roofline",
    "log_cache_over_memory_bytes",
    "tail_of_wide_tiles",
    "tail_of_long_tiles",
    "m_alignment",
    "n_alignment",
    "k_alignment",
    "kernel",
    "log_base_over_roofline",
    "busiest_share_of_base",
    "a_row_alignment",
    "b_row_alignment",
    "least_row_alignment",
    "log_busy_units",
    "log_cache_over_busiest",
    "log_time_over_roofline",
    "log_share_of_peak",
    "log_share_of_bandwidth",
    "log_cache_traffic",
    "log_base_power",
];

/// Features that only exist once a time was predicted; power is learned from them.
const OF_TIME: usize = 56;
/// How many they are.
const NUM_OF_TIME: usize = 5;

/// The features that time is learned from. `rough_time_s` is the rough time that the terms give; `kernel` its number.
pub(crate) fn time_features(
    facts: &KernelConfig,
    (product, operand_types): (&Product<'_>, &OperandTypes),
    physics: &Physics,
    machine: &Machine,
    (kernel, rough_time_s): (usize, f64),
) -> FeatureRow {
    let mut row = [0.0; WIDTH];
    let mut free = row.as_mut_slice();
    let mut add = |features: &[f32]| {
        let (taken, rest) = std::mem::take(&mut free).split_at_mut(features.len());
        taken.copy_from_slice(features);
        free = rest;
    };
    add(&of_work(product, &physics.roofline, machine));
    add(&of_config(facts, product, &physics.tiling));
    add(&of_tiling(product, physics, machine));
    let rows = row_alignments(product, operand_types, &facts.output);
    add(&of_base(product, rows, physics, (kernel, rough_time_s)));
    row
}

#[inline]
fn log(value: f64) -> f32 {
    (value as f32).log2()
}

/// Sizes, bytes and operations.
#[inline]
fn of_work(product: &Product<'_>, roofline: &Roofline, machine: &Machine) -> [f32; 13] {
    let cache = machine.last_level_cache_bytes.max(1) as f64;
    [
        log(product.m as f64),
        log(product.n as f64),
        log(product.k as f64),
        log(roofline.ops),
        log(roofline.bytes()),
        log(roofline.ops / roofline.bytes()),
        log(roofline.roofline_s()),
        log(roofline.memory_s / roofline.compute_s),
        log(roofline.weight_bytes),
        log(roofline.token_bytes),
        log(roofline.output_bytes),
        log(roofline.token_bytes / cache),
        log(roofline.bytes() / cache),
    ]
}

/// The configuration, and what of the product its code depends on.
#[inline]
fn of_config(facts: &KernelConfig, product: &Product<'_>, tiling: &Tiling) -> [f32; 18] {
    let flag = |set: bool| if set { 1.0 } else { 0.0 };
    let Tile {
        sides: [tile_m, tile_n, tile_k],
        parts,
    } = tiling.tile;
    [
        tile_m as f32,
        tile_n as f32,
        tile_k as f32,
        facts.stages as f32,
        facts.threads as f32,
        facts.cluster as f32,
        parts as f32,
        match facts.cut {
            Cut::Whole => 0.0,
            Cut::Tail => 1.0,
            Cut::All => 2.0,
        },
        group_number::of(facts.group_size) as f32,
        flag(matches!(product.layout, Layout::Tn | Layout::Tt)),
        flag(matches!(product.layout, Layout::Nt | Layout::Tt)),
        flag(product.alpha != 1.0),
        flag(product.beta != 0.0),
        element_bytes(&facts.output) as f32,
        facts.occupancy as f32,
        facts.ctas_per_sm as f32,
        facts.registers as f32,
        facts.shared_bytes as f32,
    ]
}

/// How tiles fill the machine.
#[inline]
fn of_tiling(product: &Product<'_>, physics: &Physics, machine: &Machine) -> [f32; 14] {
    let Physics { roofline, tiling, .. } = physics;
    let [efficiency_m, efficiency_n, efficiency_k] = tiling.efficiency;
    [
        log(tiling.tiles),
        log(tiling.waves),
        tiling.rounds as f32,
        (tiling.waves / tiling.waves.ceil()) as f32,
        efficiency_m as f32,
        efficiency_n as f32,
        efficiency_k as f32,
        tiling.efficiency() as f32,
        tiling.steps as f32,
        log(tiling.rounds * tiling.steps),
        log(tiling.busiest_s / roofline.roofline_s()),
        log(tiling.cached_bytes / roofline.bytes()),
        tail(product.m, product.n, [128, 256], machine),
        tail(product.m, product.n, [256, 128], machine),
    ]
}

/// What sizes and stored rows divide by, the kernel and its rough time, and what keeps the units waiting.
#[inline]
fn of_base(
    product: &Product<'_>,
    [a_row, b_row, d_row]: [f32; 3],
    Physics {
        roofline,
        tiling,
        terms,
    }: &Physics,
    (kernel, rough_time_s): (usize, f64),
) -> [f32; 11] {
    [
        alignment(product.m),
        alignment(product.n),
        alignment(product.k),
        kernel as f32,
        log(rough_time_s / roofline.roofline_s()),
        (terms[BUSIEST] / rough_time_s) as f32,
        a_row,
        b_row,
        a_row.min(b_row).min(d_row),
        log(tiling.busy_units()),
        log(terms[CACHED] / tiling.busiest_s),
    ]
}

/// Adds what a predicted time says: how much of the machine is busy, and the rough power that follows.
pub(crate) fn add_time_features(row: &mut FeatureRow, physics: &Physics, time_s: f64, rough_power_w: f64) {
    let roofline = &physics.roofline;
    row[OF_TIME] = (time_s / roofline.roofline_s()).log2() as f32;
    row[OF_TIME + 1] = (roofline.compute_s / time_s).log2() as f32;
    row[OF_TIME + 2] = (roofline.memory_s / time_s).log2() as f32;
    row[OF_TIME + 3] = (physics.terms[CACHED] / time_s).log2() as f32;
    row[OF_TIME + 4] = rough_power_w.log2() as f32;
}

/// Whether a feature only exists once a time was predicted.
pub(crate) fn is_of_time(feature: usize) -> bool {
    (OF_TIME..OF_TIME + NUM_OF_TIME).contains(&feature)
}

/// How full the last round is with tiles of a size, one on a unit: what a library might have chosen.
fn tail(m: usize, n: usize, [tile_m, tile_n]: [usize; 2], machine: &Machine) -> f32 {
    if machine.kind == MachineKind::Cpu {
        return 0.0;
    }
    let waves = (m.div_ceil(tile_m) * n.div_ceil(tile_n)) as f64 / machine.num_units as f64;
    (waves / waves.ceil()) as f32
}

/// The largest powers of two, up to 128, that divide the bytes of a stored row of A, B and D: what vector loads can take.
fn row_alignments(product: &Product<'_>, operand_types: &OperandTypes, output: &str) -> [f32; 3] {
    let a_row = match product.layout {
        Layout::Nn | Layout::Nt => product.k,
        Layout::Tn | Layout::Tt => product.m,
    };
    let b_row = match product.layout {
        Layout::Nt | Layout::Tt => product.k,
        Layout::Nn | Layout::Tn => product.n,
    };
    let bits = |elements: usize, bits: f64| (elements as f64 * bits) as u64;
    [
        bits(a_row, operand_types.a_bits),
        bits(b_row, operand_types.b_bits),
        bits(product.n, 8.0 * element_bytes(output)),
    ]
    .map(|bits| bits.trailing_zeros().clamp(3, 10) as f32 - 3.0)
}

/// The largest power of two that divides a size, as its logarithm, up to 2^12.
fn alignment(size: usize) -> f32 {
    size.trailing_zeros().min(12) as f32
}

/// Names of all features, in the order of a row.
pub fn feature_names() -> &'static [&'static str] {
    &NAMES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_has_a_name_and_those_of_the_time_come_last() {
        assert!(NAMES.len() <= WIDTH);
        assert_eq!(NAMES[OF_TIME], "log_time_over_roofline");
        assert_eq!(OF_TIME + NUM_OF_TIME, NAMES.len());
    }

    #[test]
    fn sizes_that_divide_by_powers_of_two_are_told_from_odd_ones() {
        assert_eq!(
            [1, 2, 24, 4096, 1 << 20].map(alignment),
            [0.0, 1.0, 3.0, 12.0, 12.0]
        );
    }
}
