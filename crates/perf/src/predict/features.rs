//! What a model is told of a product in a configuration: physical quantities, each a pure function of the query and the
//! machine's ceilings. Nothing is allocated here, a prediction goes through it every time.

use crate::data::{Cut, Layout};
use crate::machine::{Machine, MachineKind};
use crate::product::{ConfigFacts, Operands, Product, Unit};
use crate::roofline::{Work, element_bytes, peak};

/// Places of a row of features; a power of two, so that a walk through trees needs no check.
pub(crate) const WIDTH: usize = 64;

/// Terms a time is roughly a sum of.
pub(crate) const NUM_TERMS: usize = 9;

/// A row of features.
pub(crate) type FeatureRow = [f32; WIDTH];

/// Tiles that a library may take, which does not say which it took.
const LIBRARY_TILES: [[usize; 2]; 7] = [
    [256, 128],
    [128, 256],
    [128, 128],
    [128, 64],
    [64, 128],
    [64, 64],
    [32, 64],
];
/// Tokens of a matrix unit's tile, weight rows of a packed panel, bytes of a step: what CPU kernels work by, one thread a
/// panel.
const CPU_TILE: [usize; 3] = [16, 32, 64];
/// Columns of K of its steps, and the most parts it cuts K into.
const LIBRARY_STEP: usize = 64;
const LIBRARY_PARTS: usize = 8;
/// Elements of a side at which half of the time goes into reading the tile's operands.
const LIBRARY_HALF: f64 = 20.0;
/// Seconds by the unit of the terms that count rather than weigh: a kernel's start, a round of tiles, a step along K.
const COUNTED_S: [f64; 2] = [1e-6, 1e-8];

/// Bytes that are written at a time where rows of D allow it.
const VECTOR_BYTES: f64 = 16.0;
/// Share of the peak that kernels reach inside a tile, roughly.
const REACHED: f64 = 0.8;

/// The tiles of a product: how many, how they fill the machine, how long the busiest unit works.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tiling {
    tile: Tile,
    tiles: f64,
    /// Rounds of tiles as a real number.
    waves: f64,
    /// Rounds that the busiest unit works.
    rounds: f64,
    /// Steps along K of a tile, for one CTA.
    steps: f64,
    /// Share of the tiles' area, and of their steps along K, that is the product's.
    efficiency: [f64; 3],
    /// Seconds of the busiest unit at the machine's peak.
    busiest_s: f64,
    /// Bytes that tiles read from the shared cache.
    cache_bytes: f64,
    /// Seconds of the busiest unit to write its tiles out, an element a cycle.
    written_s: f64,
    /// Seconds of all units to make the weights ready for the matrix units, an element a cycle and unit, once for every tile of tokens.
    pub made_ready_s: f64,
}

/// How a product is cut.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tile {
    /// Of M, N, K.
    sides: [usize; 3],
    /// CTAs that share a tile's K.
    parts: usize,
}

impl Tile {
    fn of(facts: &ConfigFacts, product: &Product<'_>, machine: &Machine) -> Self {
        match facts.tile_m {
            0 if machine.kind == MachineKind::Cpu => Self {
                sides: CPU_TILE,
                parts: 1,
            },
            0 => Self::of_library(product, machine),
            _ => Self {
                sides: [facts.tile_m, facts.tile_n, facts.tile_k],
                parts: facts.split_k.max(1),
            },
        }
    }

    /// What a library would do well to take: the tile whose rounds work least, cut along K where units would idle.
    fn of_library(product: &Product<'_>, machine: &Machine) -> Self {
        let mut best = (f64::INFINITY, [0, 0], 1);
        for [tile_m, tile_n] in LIBRARY_TILES {
            let tiles = product.m.div_ceil(tile_m) * product.n.div_ceil(tile_n);
            let parts = (machine.num_units / tiles.max(1)).clamp(1, LIBRARY_PARTS);
            let rounds = (tiles * parts).div_ceil(machine.num_units);
            let area = (tile_m * tile_n) as f64;
            // Small tiles read more for what they compute.
            let slowness = 1.0 + LIBRARY_HALF * (tile_m + tile_n) as f64 / area;
            let work = rounds as f64 * area * slowness / parts as f64;
            if work < best.0 {
                best = (work, [tile_m, tile_n], parts);
            }
        }
        let (_, [tile_m, tile_n], parts) = best;
        Self {
            sides: [tile_m, tile_n, LIBRARY_STEP],
            parts,
        }
    }
}

impl Tiling {
    fn new(
        tile: Tile,
        facts: &ConfigFacts,
        operands: &Operands,
        product: &Product<'_>,
        machine: &Machine,
    ) -> Self {
        let [tile_m, tile_n, tile_k] = tile.sides.map(|side| side.max(1) as f64);
        let (m, n, k) = (product.m as f64, product.n as f64, product.k as f64);
        let parts = tile.parts as f64;
        // A row's cluster counts the CTAs that share K too; those that share tokens take neighbouring tiles of N.
        let abreast = (facts.cluster.max(1) as f64 / facts.split_k.max(1) as f64).max(1.0);
        let tiles_m = (m / tile_m).ceil();
        let tiles_n = ((n / tile_n).ceil() / abreast).ceil() * abreast;
        let tiles = tiles_m * tiles_n;
        let resident = facts.ctas_per_sm.max(1) as f64;
        let units = match machine.kind {
            MachineKind::Cpu => facts.threads.clamp(1, machine.num_units),
            MachineKind::Gpu => machine.num_units,
        };
        let slots = slots(units, facts.cluster.max(1)) * resident;
        let waves = tiles * parts / slots;
        let blocks = (k / tile_k).ceil();
        let rounds = match facts.cut {
            Cut::Whole => waves.ceil(),
            // The cut tiles are shared by all, block by block.
            Cut::Tail => waves.floor() + (waves.fract() * blocks).ceil() / blocks,
            Cut::All => (waves * blocks).ceil() / blocks,
        };
        let steps = (blocks / parts).ceil();
        // A share of the work that begins inside a tile touches one more, and hands a part of it on.
        let touched = match facts.cut {
            Cut::Whole => rounds,
            Cut::Tail => rounds.ceil(),
            Cut::All => rounds.ceil() + 1.0,
        };
        let peak = peak(operands.unit, machine) / machine.num_units as f64;
        let tile_ops = 2.0 * tile_m * tile_n * tile_k * steps;
        // CTAs abreast read their tokens once for all.
        let tile_bytes = (tile_m * operands.a_bits / abreast + tile_n * operands.b_bits) / 8.0 * k;
        Self {
            tile,
            tiles,
            waves,
            rounds,
            steps,
            efficiency: [
                m / (tiles_m * tile_m),
                n / (tiles_n * tile_n),
                k / (blocks * tile_k),
            ],
            busiest_s: rounds * resident * tile_ops / peak,
            cache_bytes: tiles * tile_bytes,
            written_s: touched * resident * tile_m * tile_n / machine.clock_hz,
            made_ready_s: tiles_m * n * k / (machine.num_units as f64 * machine.clock_hz),
        }
    }

    /// Share of the units that have work in the first round.
    pub fn busy_units(&self) -> f64 {
        self.waves.min(1.0)
    }

    /// Share of the tiles' work that is the product's.
    pub fn efficiency(&self) -> f64 {
        self.efficiency.iter().product()
    }
}

/// CTAs that run at a time with one on a unit. Clusters of more than two do not reach all units (seen on an H200: four reach
/// 120 of 132).
fn slots(num_units: usize, cluster: usize) -> f64 {
    let reached = if cluster > 2 {
        num_units * 10 / 11
    } else {
        num_units
    };
    (reached / cluster * cluster).max(cluster) as f64
}

/// All that is known of a product in a configuration before anything was learned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Physics {
    /// Bytes, operations, ceilings.
    pub work: Work,
    pub tiling: Tiling,
    /// What the time is roughly a sum of, in seconds.
    pub terms: [f64; NUM_TERMS],
}

impl Physics {
    /// Of a product in a configuration.
    pub fn new(facts: &ConfigFacts, operands: &Operands, product: &Product<'_>, machine: &Machine) -> Self {
        let work = Work::new(operands, product, &facts.output, machine);
        let tile = Tile::of(facts, product, machine);
        let tiling = Tiling::new(tile, facts, operands, product, machine);
        // The 4-bit kernels hand their tiles out through shared memory in vectors; others have shown no such cost.
        let staged = facts.tile_m > 0 && operands.unit == Unit::Int8;
        let written_s = if staged { tiling.written_s } else { 0.0 };
        let row_bytes = (product.n as f64 * element_bytes(&facts.output)) as u64;
        let piece_bytes =
            f64::from(1u32 << row_bytes.trailing_zeros().min(4)).max(element_bytes(&facts.output));
        // Pieces beyond those of whole vectors.
        let pieces = VECTOR_BYTES / piece_bytes - 1.0;
        let elements = product.m as f64 * product.n as f64;
        let pieces_s = elements * pieces / (machine.num_units as f64 * machine.clock_hz);
        let terms = [
            COUNTED_S[0],
            work.memory_s,
            tiling.busiest_s,
            tiling.cache_bytes / machine.read_bytes_per_s,
            tiling.rounds * COUNTED_S[0],
            tiling.rounds * tiling.steps * COUNTED_S[1],
            work.memory_s.max(tiling.busiest_s / REACHED),
            written_s,
            // Rows of D that begin at odd places are written in pieces, at worst element by element; memory takes so
            // many pieces a second, however the tiles lie.
            if staged { pieces_s } else { 0.0 },
        ];
        Self { work, tiling, terms }
    }
}

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

/// The features that time is learned from. `base_s` is the rough time that the terms give; `kernel` its number.
pub(crate) fn of_product(
    facts: &ConfigFacts,
    (product, operands): (&Product<'_>, &Operands),
    physics: &Physics,
    machine: &Machine,
    (kernel, base_s): (usize, f64),
) -> FeatureRow {
    let mut row = [0.0; WIDTH];
    let mut free = row.as_mut_slice();
    let mut add = |features: &[f32]| {
        let (taken, rest) = std::mem::take(&mut free).split_at_mut(features.len());
        taken.copy_from_slice(features);
        free = rest;
    };
    add(&of_work(product, &physics.work, machine));
    add(&of_config(facts, product, &physics.tiling));
    add(&of_tiling(product, physics, machine));
    let rows = row_alignments(product, operands, &facts.output);
    add(&of_base(product, rows, physics, (kernel, base_s)));
    row
}

#[inline]
fn log(value: f64) -> f32 {
    (value as f32).log2()
}

/// Sizes, bytes and operations.
#[inline]
fn of_work(product: &Product<'_>, work: &Work, machine: &Machine) -> [f32; 13] {
    let cache = machine.cache_bytes.max(1) as f64;
    [
        log(product.m as f64),
        log(product.n as f64),
        log(product.k as f64),
        log(work.ops),
        log(work.bytes()),
        log(work.ops / work.bytes()),
        log(work.roofline_s()),
        log(work.memory_s / work.compute_s),
        log(work.weight_bytes),
        log(work.token_bytes),
        log(work.output_bytes),
        log(work.token_bytes / cache),
        log(work.bytes() / cache),
    ]
}

/// The configuration, and what of the product its code depends on.
#[inline]
fn of_config(facts: &ConfigFacts, product: &Product<'_>, tiling: &Tiling) -> [f32; 18] {
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
        facts.group_size as f32,
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
    let Physics { work, tiling, .. } = physics;
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
        log(tiling.busiest_s / work.roofline_s()),
        log(tiling.cache_bytes / work.bytes()),
        tail(product.m, product.n, [128, 256], machine),
        tail(product.m, product.n, [256, 128], machine),
    ]
}

/// What sizes and stored rows divide by, the kernel and its rough time, and what keeps the units waiting.
#[inline]
fn of_base(
    product: &Product<'_>,
    [a_row, b_row, d_row]: [f32; 3],
    Physics { work, tiling, terms }: &Physics,
    (kernel, base_s): (usize, f64),
) -> [f32; 11] {
    [
        alignment(product.m),
        alignment(product.n),
        alignment(product.k),
        kernel as f32,
        log(base_s / work.roofline_s()),
        (terms[2] / base_s) as f32,
        a_row,
        b_row,
        a_row.min(b_row).min(d_row),
        log(tiling.busy_units()),
        log(terms[3] / tiling.busiest_s),
    ]
}

/// Adds what a predicted time says: how much of the machine is busy, and the rough power that follows.
pub(crate) fn add_time(row: &mut FeatureRow, physics: &Physics, time_s: f64, base_w: f64) {
    let work = &physics.work;
    row[OF_TIME] = (time_s / work.roofline_s()).log2() as f32;
    row[OF_TIME + 1] = (work.compute_s / time_s).log2() as f32;
    row[OF_TIME + 2] = (work.memory_s / time_s).log2() as f32;
    row[OF_TIME + 3] = (physics.terms[3] / time_s).log2() as f32;
    row[OF_TIME + 4] = base_w.log2() as f32;
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
fn row_alignments(product: &Product<'_>, operands: &Operands, output: &str) -> [f32; 3] {
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
        bits(a_row, operands.a_bits),
        bits(b_row, operands.b_bits),
        bits(product.n, 8.0 * element_bytes(output)),
    ]
    .map(|bits| bits.trailing_zeros().clamp(3, 10) as f32 - 3.0)
}

/// The largest power of two that divides a size, as its logarithm, up to 2^12.
fn alignment(size: usize) -> f32 {
    size.trailing_zeros().min(12) as f32
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
