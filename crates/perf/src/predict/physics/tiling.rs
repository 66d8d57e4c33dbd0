//! The tiles of a product: how a kernel cuts it, how the tiles fill the machine, and how long the busiest unit works.

use crate::data::Cut;
use crate::machine::{Machine, MachineKind};
use crate::operands::OperandTypes;
use crate::predict::kernel_config::KernelConfig;
use crate::product::Product;

/// Tiles that a library may take. It does not say which one it takes.
const LIBRARY_TILES: [[usize; 2]; 7] = [
    [256, 128],
    [128, 256],
    [128, 128],
    [128, 64],
    [64, 128],
    [64, 64],
    [32, 64],
];
/// Columns of K in a library's step, and the most parts that it cuts K into.
const LIBRARY_STEP: usize = 64;
const LIBRARY_PARTS: usize = 8;
/// Elements of a side at which a library spends half of its time on reading the operands of a tile.
const LIBRARY_HALF: f64 = 20.0;
/// The unit of work of CPU kernels: tokens of a matrix unit's tile, weight rows of a packed panel, bytes of a step. A thread
/// takes one panel at a time.
const CPU_TILE: [usize; 3] = [16, 32, 64];

/// How a product is cut into tiles, how these fill the machine, and how long the busiest unit works.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tiling {
    pub tile: Tile,
    /// Number of tiles.
    pub tiles: f64,
    /// Rounds of tiles as a real number.
    pub waves: f64,
    /// Rounds that the busiest unit works.
    pub rounds: f64,
    /// Steps along K that one CTA takes for a tile.
    pub steps: f64,
    /// For M, N and K: the fraction of the tiles' extent that belongs to the product.
    pub efficiency: [f64; 3],
    /// Seconds of the busiest unit at the machine's peak.
    pub busiest_s: f64,
    /// Bytes that the tiles read from the last-level cache.
    pub cached_bytes: f64,
    /// Seconds of the busiest unit to write its tiles out, one element per cycle.
    pub written_s: f64,
    /// Seconds of all units to prepare the weights for the matrix units: one element per cycle and unit, once for every tile
    /// of tokens.
    pub prepared_s: f64,
}

/// A tile of a product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tile {
    /// Its sides along M, N and K.
    pub sides: [usize; 3],
    /// CTAs that share its K.
    pub parts: usize,
}

impl Tile {
    /// The tile of a configuration; for libraries and CPUs the tile that they are assumed to take.
    pub fn of(facts: &KernelConfig, product: &Product<'_>, machine: &Machine) -> Self {
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

    /// The tile that is best for a library: its rounds take least, and K is cut where units would idle.
    fn of_library(product: &Product<'_>, machine: &Machine) -> Self {
        let mut best = (f64::INFINITY, [0, 0], 1);
        for [tile_m, tile_n] in LIBRARY_TILES {
            let tiles = product.m.div_ceil(tile_m) * product.n.div_ceil(tile_n);
            let parts = (machine.num_units / tiles.max(1)).clamp(1, LIBRARY_PARTS);
            let rounds = (tiles * parts).div_ceil(machine.num_units);
            let area = (tile_m * tile_n) as f64;
            // Small tiles read more bytes for each operation.
            let slowness = 1.0 + LIBRARY_HALF * (tile_m + tile_n) as f64 / area;
            let cost = rounds as f64 * area * slowness / parts as f64;
            if cost < best.0 {
                best = (cost, [tile_m, tile_n], parts);
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
    pub fn new(
        tile: Tile,
        facts: &KernelConfig,
        operand_types: &OperandTypes,
        product: &Product<'_>,
        machine: &Machine,
    ) -> Self {
        let [tile_m, tile_n, tile_k] = tile.sides.map(|side| side.max(1) as f64);
        let (m, n, k) = (product.m as f64, product.n as f64, product.k as f64);
        let parts = tile.parts as f64;
        // A cluster counts the CTAs that share K too. Those that share tokens take neighbouring tiles of N.
        let abreast = (facts.cluster.max(1) as f64 / facts.split_k.max(1) as f64).max(1.0);
        let tiles_m = (m / tile_m).ceil();
        let tiles_n = ((n / tile_n).ceil() / abreast).ceil() * abreast;
        let tiles = tiles_m * tiles_n;
        let resident = facts.ctas_per_sm.max(1) as f64;
        let slots = slots(num_units(facts, machine), facts.cluster.max(1)) * resident;
        let waves = tiles * parts / slots;
        let blocks = (k / tile_k).ceil();
        let rounds = rounds(facts.cut, waves, blocks);
        let steps = (blocks / parts).ceil();
        let peak = machine.peak_ops_per_s(operand_types.unit) / machine.num_units as f64;
        let tile_ops = 2.0 * tile_m * tile_n * tile_k * steps;
        // CTAs abreast read their tokens once for all of them.
        let tile_bytes = (tile_m * operand_types.a_bits / abreast + tile_n * operand_types.b_bits) / 8.0 * k;
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
            cached_bytes: tiles * tile_bytes,
            written_s: touched(facts.cut, rounds) * resident * tile_m * tile_n / machine.clock_hz,
            prepared_s: tiles_m * n * k / (machine.num_units as f64 * machine.clock_hz),
        }
    }

    /// Fraction of the units that have work in the first round.
    pub fn busy_units(&self) -> f64 {
        self.waves.min(1.0)
    }

    /// Fraction of the tiles' work that belongs to the product.
    pub fn efficiency(&self) -> f64 {
        self.efficiency.iter().product()
    }
}

/// Units that a configuration uses: the threads of a CPU, all multiprocessors of a GPU.
fn num_units(facts: &KernelConfig, machine: &Machine) -> usize {
    match machine.kind {
        MachineKind::Cpu => facts.threads.clamp(1, machine.num_units),
        MachineKind::Gpu => machine.num_units,
    }
}

/// Rounds that the busiest unit works. Tiles that are cut along K are shared by all units, block by block.
fn rounds(cut: Cut, waves: f64, blocks: f64) -> f64 {
    match cut {
        Cut::Whole => waves.ceil(),
        Cut::Tail => waves.floor() + (waves.fract() * blocks).ceil() / blocks,
        Cut::All => (waves * blocks).ceil() / blocks,
    }
}

/// Tiles that the busiest unit writes to. Work that begins inside a tile touches one tile more, and hands a part of it on.
fn touched(cut: Cut, rounds: f64) -> f64 {
    match cut {
        Cut::Whole => rounds,
        Cut::Tail => rounds.ceil(),
        Cut::All => rounds.ceil() + 1.0,
    }
}

/// CTAs that run at a time if a unit holds one. Clusters of more than two do not reach all units: on an H200, clusters of four
/// reach 120 of 132.
fn slots(num_units: usize, cluster: usize) -> f64 {
    let reached = if cluster > 2 {
        num_units * 10 / 11
    } else {
        num_units
    };
    (reached / cluster * cluster).max(cluster) as f64
}
