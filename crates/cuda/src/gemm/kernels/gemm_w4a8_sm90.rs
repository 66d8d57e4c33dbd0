//! Sizes of `gemm_w4a8_sm90`, beside cu/gemm/gemm_w4a8_sm90.cu: what a size needs and how it covers a product.

use std::fmt;

use dualgrain_format::GroupSize;

use super::geometry::{Geometry, Split};
use crate::driver::{GpuInfo, Launch};
use crate::gemm::operands::{BLOCK_K, BLOCK_N, block_bytes};
use crate::gemm::problem::{GemmProblem, Output};

/// Shared memory a block may use on Hopper.
const SHARED_BYTES: usize = 232_448;
/// More stages than this hide nothing more.
const MOST_STAGES: usize = 24;
/// Fewer than this are no ring.
const LEAST_STAGES: usize = 3;
/// Threads of a warp group.
const WARP_GROUP: usize = 128;
/// The ring begins at a multiple of this.
const RING_ALIGNMENT: usize = 1024;
/// Up to here a launch may begin while the one before it ends: 3 to 20 % at M <= 64 on an H200; long products gain nothing.
const MOST_OVERLAPPED_TOKENS: usize = 512;
/// Part of the second-level cache that activations may take while weights stream past them.
const RASTER_SHARE: f64 = 0.3;

/// A size of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GemmSm90 {
    /// Tokens of a tile.
    pub tile_m: usize,
    /// Warp groups that multiply.
    pub warp_groups: usize,
    /// Blocks of 64 output features each of them takes.
    pub subtiles: usize,
    /// CTAs along N that share activations.
    pub cluster: usize,
    /// CTAs of a cluster that share a tile, each with a part of K; their sums meet in shared memory.
    pub split_k: usize,
}

impl GemmSm90 {
    /// Output features of a tile.
    pub fn tile_n(&self) -> usize {
        BLOCK_N * self.warp_groups * self.subtiles
    }

    /// Threads of a CTA.
    pub fn threads(&self) -> usize {
        WARP_GROUP * (self.warp_groups + 1)
    }

    /// CTAs of a cluster.
    pub fn cluster_ctas(&self) -> usize {
        self.cluster * self.split_k
    }

    /// Whether its ring fits shared memory and its numbers fit registers: two subtiles of 128 tokens, or seven warp
    /// groups, leave none to address 32-bit outputs with.
    pub fn exists(&self, group: GroupSize, output: Output) -> bool {
        let crowded = self.tile_m * self.subtiles > 128 && self.subtiles > 1 || self.warp_groups > 5;
        self.stages(group, output) >= LEAST_STAGES && !(crowded && output.size_bytes() == 4)
    }

    /// Slots of the ring in shared memory: as many as fit.
    pub fn stages(&self, group: GroupSize, output: Output) -> usize {
        let (fixed, stage) = (self.fixed_bytes(output), self.stage_bytes(group));
        (SHARED_BYTES.saturating_sub(fixed) / stage).min(MOST_STAGES)
    }

    /// Dynamic shared memory of a CTA.
    pub fn shared_bytes(&self, group: GroupSize, output: Output) -> usize {
        self.fixed_bytes(output) + self.stages(group, output) * self.stage_bytes(group)
    }

    /// What the ring leaves: its alignment, outputs on their way out, sums of the other parts of K, scales of tokens, two
    /// barriers and a word for each warp group.
    fn fixed_bytes(&self, output: Output) -> usize {
        let out_tokens = self.tile_m / self.split_k;
        let staged = out_tokens.is_multiple_of(16) && output.size_bytes() == 2;
        let chunk = [64, 32, 16]
            .into_iter()
            .find(|&chunk| out_tokens.is_multiple_of(chunk));
        let staging = if staged { chunk.unwrap_or(0) * 128 } else { 0 };
        let sums = (self.split_k - 1) * self.subtiles * (out_tokens / 2) * 512;
        RING_ALIGNMENT + self.warp_groups * (staging + sums + 8 * self.tile_m + 20)
    }

    /// Bytes of a slot of the ring: activations, packed weights, two barriers.
    fn stage_bytes(&self, group: GroupSize) -> usize {
        let weights = self.warp_groups * self.subtiles * block_bytes(group);
        self.tile_m * BLOCK_K + weights.next_multiple_of(128) + 16
    }

    /// Macros beside those of every product.
    pub(crate) fn macros(&self, group: GroupSize, output: Output) -> Vec<(&'static str, i64)> {
        vec![
            ("TILE_M", self.tile_m as i64),
            ("WARP_GROUPS", self.warp_groups as i64),
            ("SUBTILES", self.subtiles as i64),
            ("CLUSTER", self.cluster as i64),
            ("SPLIT_K", self.split_k as i64),
            ("STAGES", self.stages(group, output) as i64),
            ("SHARED_BYTES", self.shared_bytes(group, output) as i64),
        ]
    }

    /// Splits that make sense for it.
    pub(crate) fn splits(&self) -> &'static [Split] {
        match self.split_k {
            1 => &[Split::Whole, Split::Tail, Split::All],
            _ => &[Split::Whole],
        }
    }

    /// CTAs and work of a product on a card.
    pub(crate) fn geometry(&self, split: Split, problem: &GemmProblem, gpu: &GpuInfo) -> Geometry {
        let shape = problem.shape;
        let n_tiles = shape.n.div_ceil(self.tile_n()).next_multiple_of(self.cluster);
        let tiles = n_tiles * shape.m.div_ceil(self.tile_m);
        let resident = resident_ctas(gpu.num_sms, self.cluster_ctas());
        let cut_tiles = match split {
            Split::Whole => 0,
            Split::Tail => tiles % resident,
            Split::All => tiles,
        };
        // Clusters stay and take tiles in turn.
        let work = tiles - cut_tiles + cut_tiles * problem.k_blocks();
        let ctas = resident.min((work * self.split_k).next_multiple_of(self.cluster_ctas()));
        let accumulators = self.tile_m * self.tile_n() * 4;
        let counters = 4 * self.warp_groups;
        Geometry {
            launch: Launch {
                grid: [ctas as u32, 1, 1],
                threads: self.threads() as u32,
                shared_bytes: self.shared_bytes(problem.group, problem.output),
                cluster: self.cluster_ctas() as u32,
                programmatic: shape.m <= MOST_OVERLAPPED_TOKENS,
            },
            tiles,
            cut_tiles,
            raster_m: self.raster(problem, gpu),
            workspace_bytes: cut_tiles * (accumulators + counters).next_multiple_of(256),
        }
    }

    /// Token tiles that are visited before the next feature tile: those whose activations stay in the second-level
    /// cache together; 0 means all.
    fn raster(&self, problem: &GemmProblem, gpu: &GpuInfo) -> usize {
        let shape = problem.shape;
        let room = gpu.l2_bytes as f64 * RASTER_SHARE;
        let tiles = (room / (self.tile_m * shape.k) as f64).floor() as usize;
        if tiles >= shape.m.div_ceil(self.tile_m) {
            0
        } else {
            tiles.max(1)
        }
    }
}

/// CTAs that run at a time, one a multiprocessor. A cluster stays within a part of the chip, and the parts' numbers of
/// multiprocessors are even but no multiples of four: of 132, clusters of four reach 120 (seen on an H200).
pub(crate) fn resident_ctas(num_sms: usize, cluster: usize) -> usize {
    let reached = match cluster {
        0..=2 => num_sms,
        _ => num_sms * 10 / 11,
    };
    (reached / cluster * cluster).max(cluster)
}

impl fmt::Display for GemmSm90 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tile_m, tile_n) = (self.tile_m, self.tile_n());
        write!(
            f,
            "m{tile_m}n{tile_n}k{BLOCK_K}_w{}x{}_c{}_k{}",
            self.warp_groups, self.subtiles, self.cluster, self.split_k
        )
    }
}

#[cfg(test)]
mod tests {
    use dualgrain_format::GemmShape;

    use super::*;

    fn sized(tile_m: usize, [warp_groups, subtiles]: [usize; 2], cluster: usize, split_k: usize) -> GemmSm90 {
        GemmSm90 {
            tile_m,
            warp_groups,
            subtiles,
            cluster,
            split_k,
        }
    }

    #[test]
    fn shared_memory_is_what_the_kernels_lay_out() {
        // Read off the kernels' own constants.
        for (gemm, group, output, expected) in [
            (
                sized(64, [2, 1], 1, 1),
                GroupSize::Along(128),
                Output::F16,
                (12, 218_344),
            ),
            (
                sized(16, [2, 1], 1, 1),
                GroupSize::Along(128),
                Output::F16,
                (21, 226_168),
            ),
            (
                sized(64, [2, 1], 1, 2),
                GroupSize::Along(32),
                Output::Sums,
                (12, 227_560),
            ),
            (
                sized(256, [2, 1], 1, 2),
                GroupSize::Along(128),
                Output::Bf16,
                (3, 210_776),
            ),
        ] {
            let got = (gemm.stages(group, output), gemm.shared_bytes(group, output));
            assert_eq!(got, expected, "{gemm}");
        }
    }

    #[test]
    fn activations_that_outgrow_the_cache_are_visited_in_parts() {
        let raster = |m, k| {
            let problem = GemmProblem {
                shape: GemmShape { m, n: 8_192, k },
                group: GroupSize::Along(128),
                output: Output::Bf16,
            };
            let geometry = sized(256, [2, 1], 1, 1).geometry(Split::Whole, &problem, &GpuInfo::h200());
            geometry.raster_m
        };
        assert_eq!(raster(256, 8_192), 0);
        assert_eq!(raster(4_096, 4_096), 0);
        let parts = raster(4_096, 28_672);
        assert!(0 < parts && parts < 16, "{parts}");
    }
}
