//! Sizes of `gemm_w4a8_sm80`, beside cu/gemm_w4a8_sm80.cu: every card from Ampere on.

use std::fmt;

use super::config::{GemmProblem, Geometry, Output};
use super::device::DeviceInfo;
use super::launch::Launch;
use super::packing::{BLOCK_K, BLOCK_N, GroupLength};

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

    /// Whether its numbers fit registers: four strips copied by four warps leave none to address 32-bit outputs with.
    pub(super) fn exists(&self, output: Output) -> bool {
        !(self.strips > 2 && self.warps_m == 1 && output.size_bytes() == 4)
    }

    /// Dynamic shared memory of a CTA.
    pub fn shared_bytes(&self, group: GroupLength) -> usize {
        self.stages * (self.tile_m * BLOCK_K + self.strips * group.block_bytes())
    }

    /// Macros beside those of every product.
    pub(super) fn macros(&self) -> Vec<(&'static str, i64)> {
        vec![
            ("TILE_M", self.tile_m as i64),
            ("WARPS_M", self.warps_m as i64),
            ("STAGES", self.stages as i64),
            ("STRIPS", self.strips as i64),
        ]
    }

    /// CTAs and work of a product: one CTA a tile.
    pub(super) fn geometry(&self, problem: &GemmProblem, device: &DeviceInfo) -> Geometry {
        let shape = problem.shape;
        let tiles = shape.m.div_ceil(self.tile_m) * shape.n.div_ceil(self.tile_n());
        Geometry {
            launch: Launch {
                grid: [tiles as u32, 1, 1],
                threads: self.threads() as u32,
                shared_bytes: self.shared_bytes(problem.group),
                cluster: 1,
                programmatic: device.capability >= (9, 0),
            },
            tiles,
            cut_tiles: 0,
            raster_m: 0,
            workspace_bytes: 0,
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
