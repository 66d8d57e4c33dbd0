//! Sizes of `gemm_w4a8_sm80`, beside cu/gemm/gemm_w4a8_sm80.cu: every card from Ampere on.

use std::fmt;

use dualgrain_format::GroupSize;

use super::geometry::{Geometry, Split};
use crate::driver::{GpuInfo, Launch};
use crate::gemm::operands::{BLOCK_K, BLOCK_N, block_bytes};
use crate::gemm::problem::GemmProblem;

/// Tokens of a warp up to which two strips leave registers for a second CTA on a multiprocessor.
const SHARED_WARP_TOKENS: usize = 32;
/// Tiles of more strips are not cut along K: they leave no registers to meet with.
const CUT_STRIPS: usize = 2;
/// Blocks of K that a part of a tile has at least.
const LEAST_BLOCKS: usize = 4;
/// Warps along N.
const WARPS_N: usize = 4;

/// A size of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GemmSm80 {
    /// Tokens of a tile.
    pub tile_m: usize,
    /// Warps along the tokens, 16 or more each.
    pub warps_m: usize,
    /// Slots of the ring in shared memory.
    pub stages: usize,
    /// Strips of 16 features a warp takes; a tile has 64 features for each.
    pub strips: usize,
}

impl GemmSm80 {
    /// Output features of a tile.
    pub fn tile_n(&self) -> usize {
        self.strips * BLOCK_N
    }

    /// Threads of a CTA.
    pub fn threads(&self) -> usize {
        32 * WARPS_N * self.warps_m
    }

    /// Dynamic shared memory of a CTA.
    pub fn shared_bytes(&self, group: GroupSize) -> usize {
        self.stages * (self.tile_m * BLOCK_K + self.strips * block_bytes(group))
    }

    /// Macros beside those of every product.
    pub(crate) fn macros(&self) -> Vec<(&'static str, i64)> {
        vec![
            ("TILE_M", self.tile_m as i64),
            ("WARPS_M", self.warps_m as i64),
            ("STAGES", self.stages as i64),
            ("STRIPS", self.strips as i64),
        ]
    }

    /// CTAs that fit a multiprocessor, by registers and shared memory.
    pub(crate) fn resident(&self, group: GroupSize, gpu: &GpuInfo) -> usize {
        let few_registers = self.strips <= CUT_STRIPS && self.tile_m / self.warps_m <= SHARED_WARP_TOKENS;
        let most = if few_registers { 2 } else { 1 };
        (gpu.shared_bytes / self.shared_bytes(group)).clamp(1, most)
    }

    /// CTAs of a tile: as many as all multiprocessors hold at a time, with `LEAST_BLOCKS` of K each.
    fn parts(&self, split: Split, tiles: usize, problem: &GemmProblem, gpu: &GpuInfo) -> usize {
        let places = gpu.num_sms * self.resident(problem.group, gpu);
        let most = (problem.k_blocks() / LEAST_BLOCKS).max(1);
        match split {
            Split::All if self.strips <= CUT_STRIPS => (places / tiles).clamp(1, most),
            Split::Whole | Split::Tail | Split::All => 1,
        }
    }

    /// CTAs and work of a product: one CTA a tile, or several with a part of K each.
    pub(crate) fn geometry(&self, split: Split, problem: &GemmProblem, gpu: &GpuInfo) -> Geometry {
        let shape = problem.shape;
        let tiles = shape.m.div_ceil(self.tile_m) * shape.n.div_ceil(self.tile_n());
        let parts = self.parts(split, tiles, problem, gpu);
        let cut_tiles = if parts > 1 { tiles } else { 0 };
        Geometry {
            launch: Launch {
                grid: [(tiles * parts) as u32, 1, 1],
                threads: self.threads() as u32,
                shared_bytes: self.shared_bytes(problem.group),
                cluster: 1,
                programmatic: gpu.overlaps_launches(),
            },
            tiles,
            cut_tiles,
            raster_m: 0,
            // Sums and a counter.
            workspace_bytes: cut_tiles * 4 * (self.tile_m * self.tile_n() + 1),
        }
    }
}

impl fmt::Display for GemmSm80 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tile_m, tile_n) = (self.tile_m, self.tile_n());
        write!(
            f,
            "m{tile_m}n{tile_n}k{BLOCK_K}_a{}_s{}",
            self.warps_m, self.stages
        )
    }
}
