//! The physical terms of a product in a configuration. Its time is roughly a weighted sum of them.

use super::tiling::{Tile, Tiling};
use crate::machine::Machine;
use crate::operands::{ArithmeticUnit, OperandTypes};
use crate::predict::kernel_config::KernelConfig;
use crate::product::Product;
use crate::roofline::{Roofline, element_bytes};

/// Number of the terms that a time is roughly a sum of.
pub(crate) const NUM_TERMS: usize = 9;

/// Seconds by the unit of the terms that count rather than weigh: a kernel's start, a round of tiles, a step along K.
const COUNTED_S: [f64; 2] = [1e-6, 1e-8];

/// Bytes that are written at a time where rows of D allow it.
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
            roofline.memory_s,
            tiling.busiest_s,
            tiling.cached_bytes / machine.read_bytes_per_s,
            tiling.rounds * COUNTED_S[0],
            tiling.rounds * tiling.steps * COUNTED_S[1],
            roofline.memory_s.max(tiling.busiest_s / REACHED),
            written_s,
            // Rows of D that begin at odd places are written in pieces, at worst element by element; memory takes so
            // many pieces a second, however the tiles lie.
            if staged { pieces_s } else { 0.0 },
        ];
        Self {
            roofline,
            tiling,
            terms,
        }
    }
}
