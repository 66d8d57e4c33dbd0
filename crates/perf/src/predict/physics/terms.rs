//! The physical terms of a product in a configuration. Its time is roughly a weighted sum of them.

use super::tiling::{Tile, Tiling};
use crate::machine::Machine;
use crate::operands::{ArithmeticUnit, OperandTypes};
use crate::predict::kernel_config::KernelConfig;
use crate::product::Product;
use crate::roofline::{Roofline, element_bytes};

/// Number of the terms that a time is roughly a sum of.
pub(crate) const NUM_TERMS: usize = 9;
/// Places of some terms: the busiest unit's operations, bytes from the cache, writing the tiles out.
pub(crate) const BUSIEST: usize = 2;
pub(crate) const CACHED: usize = 3;
pub(crate) const WRITTEN: usize = 7;

/// Some terms are counts. A kernel's start and a round of tiles count as a microsecond, a step along K as ten nanoseconds.
const ROUND_S: f64 = 1e-6;
const STEP_S: f64 = 1e-8;
/// Bytes that are written at a time where the rows of D allow it.
const VECTOR_BYTES: f64 = 16.0;
/// Fraction of the peak that kernels roughly reach inside a tile.
const REACHED: f64 = 0.8;

/// What is known of a product in a configuration before anything is learned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Physics {
    pub roofline: Roofline,
    pub tiling: Tiling,
    /// The terms that the time is roughly a sum of, in seconds.
    pub terms: [f64; NUM_TERMS],
}

impl Physics {
    /// The physics of a product in a configuration.
    pub fn new(
        facts: &KernelConfig,
        operand_types: &OperandTypes,
        product: &Product<'_>,
        machine: &Machine,
    ) -> Self {
        let roofline = Roofline::new(operand_types, product, &facts.output, machine);
        let tile = Tile::of(facts, product, machine);
        let tiling = Tiling::new(tile, facts, operand_types, product, machine);
        // The 4-bit kernels write their tiles through shared memory in vectors. Others have shown no such cost.
        let staged = facts.tile_m > 0 && operand_types.unit == ArithmeticUnit::Int8;
        let if_staged = |seconds: f64| if staged { seconds } else { 0.0 };
        let terms = [
            ROUND_S,
            roofline.memory_s,
            tiling.busiest_s,
            tiling.cached_bytes / machine.read_bytes_per_s,
            tiling.rounds * ROUND_S,
            tiling.rounds * tiling.steps * STEP_S,
            roofline.memory_s.max(tiling.busiest_s / REACHED),
            if_staged(tiling.written_s),
            if_staged(pieces_s(product, &facts.output, machine)),
        ];
        Self {
            roofline,
            tiling,
            terms,
        }
    }
}

/// Seconds that memory takes for the pieces of D beyond whole vectors. Rows of D that begin at odd places are written in
/// pieces, at worst element by element, however the tiles lie.
fn pieces_s(product: &Product<'_>, output: &str, machine: &Machine) -> f64 {
    let row_bytes = (product.n as f64 * element_bytes(output)) as u64;
    let piece_bytes = f64::from(1u32 << row_bytes.trailing_zeros().min(4)).max(element_bytes(output));
    let pieces = VECTOR_BYTES / piece_bytes - 1.0;
    let elements = product.m as f64 * product.n as f64;
    elements * pieces / (machine.num_units as f64 * machine.clock_hz)
}
