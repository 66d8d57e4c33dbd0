//! Sizes of `gemv_w4a8_sm90`, beside cu/gemm/gemv_w4a8_sm90.cu: few tokens, every weight read once straight into registers.

use std::fmt;

use dualgrain_format::GroupSize;

use super::geometry::Geometry;
use crate::driver::{GpuInfo, Launch};
use crate::gemm::operands::BLOCK_K;
use crate::gemm::problem::GemmProblem;

/// Rows of N a CTA takes at a time.
const STRIP_ROWS: usize = 16;
/// Bytes between rows of activations, so that they lie in different banks.
const ROW_GAP: usize = 16;
/// Sums of a strip change hands in two places.
const HANDED: usize = 2;

/// A size of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GemvSm90 {
    /// Most tokens.
    pub tile_m: usize,
    /// Warps that share a strip's K.
    pub warps: usize,
    /// Blocks of weights each of them has in flight.
    pub depth: usize,
    /// CTAs that fit a multiprocessor.
    pub ctas: usize,
}

impl GemvSm90 {
    /// Output features of a strip.
    pub fn tile_n(&self) -> usize {
        STRIP_ROWS
    }

    /// Threads of a CTA.
    pub fn threads(&self) -> usize {
        32 * self.warps
    }

    /// Whether its numbers fit registers: two CTAs leave a thread 32, too few for four scales a block.
    pub(crate) fn exists(&self, group: GroupSize) -> bool {
        self.ctas == 1 || group != GroupSize::Along(32)
    }

    /// Whether tokens and their activations fit.
    pub(crate) fn fits(&self, problem: &GemmProblem, gpu: &GpuInfo) -> bool {
        let handed = HANDED * self.warps * STRIP_ROWS * self.tile_m * 4;
        problem.shape.m <= self.tile_m
            && self.ctas * (self.shared_bytes(problem.k_blocks()) + handed + 1024) <= gpu.shared_bytes
    }

    /// Activations of all tokens.
    fn shared_bytes(&self, k_blocks: usize) -> usize {
        self.tile_m * (k_blocks * BLOCK_K + ROW_GAP)
    }

    /// Macros beside those of every product.
    pub(crate) fn macros(&self) -> Vec<(&'static str, i64)> {
        vec![
            ("TILE_M", self.tile_m as i64),
            ("WARPS", self.warps as i64),
            ("DEPTH", self.depth as i64),
            ("CTAS", self.ctas as i64),
        ]
    }

    /// CTAs and work of a product on a card.
    pub(crate) fn geometry(&self, problem: &GemmProblem, gpu: &GpuInfo) -> Geometry {
        let strips = problem.shape.n.div_ceil(STRIP_ROWS);
        Geometry {
            launch: Launch {
                grid: [strips.min(gpu.num_sms * self.ctas) as u32, 1, 1],
                threads: self.threads() as u32,
                shared_bytes: self.shared_bytes(problem.k_blocks()),
                cluster: 1,
                // Older cards have no such launch.
                programmatic: gpu.overlaps_launches(),
            },
            tiles: strips,
            cut_tiles: 0,
            raster_m: 0,
            workspace_bytes: 0,
        }
    }
}

impl fmt::Display for GemvSm90 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tile_m, warps, depth) = (self.tile_m, self.warps, self.depth);
        write!(
            f,
            "m{tile_m}n{STRIP_ROWS}k{BLOCK_K}_v{warps}_d{depth}_x{}",
            self.ctas
        )
    }
}
