//! Which kernels exist in which sizes, and what each size means on a card: the one table, and the formulae beside it.
//!
//! A product goes through `enumerate` (what could run it), `cost` (how long each would take) and `choose`; what is
//! chosen is data, and a cost function that was learned takes the place of the analytic one without touching a kernel.

use std::fmt;

use dualgrain_format::GemmShape;

use super::device::DeviceInfo;
use super::jit::Source;
use super::launch::Launch;
use super::packing::{BLOCK_K, BLOCK_N, GroupLength};
use super::source;

/// A product as the kernels see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GemmProblem {
    /// M tokens, N output features, K reduction.
    pub shape: GemmShape,
    /// Columns that share a group scale.
    pub group: GroupLength,
    /// What is written.
    pub output: Output,
}

impl GemmProblem {
    /// Blocks of the packed weights along K.
    pub fn k_blocks(&self) -> usize {
        self.shape.k.div_ceil(BLOCK_K)
    }
}

/// What a product writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Output {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// Brain floats.
    Bf16,
    /// The integer sums, for tests.
    Sums,
}

impl Output {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::Bf16, Self::Sums];

    /// Bytes of an element.
    pub fn size_bytes(self) -> usize {
        match self {
            Self::F32 | Self::Sums => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The number the kernels are compiled with.
    fn code(self) -> i64 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Bf16 => 2,
            Self::Sums => 3,
        }
    }
}

/// A product's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GemmKernel {
    /// Hopper: weights as the register operand of wgmma, activations by the bulk copy engine.
    GemmW4a8Sm90,
}

impl GemmKernel {
    /// Its symbol, file, and key in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::GemmW4a8Sm90 => "gemm_w4a8_sm90",
        }
    }

    /// Whether it runs on a compute capability. wgmma is Hopper's alone.
    pub fn runs_on(self, capability: (i32, i32)) -> bool {
        match self {
            Self::GemmW4a8Sm90 => capability == (9, 0),
        }
    }
}

/// What a kernel is compiled with: a row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Variant {
    /// The kernel.
    pub kernel: GemmKernel,
    /// Tokens of a tile.
    pub tile_m: usize,
    /// Warp groups that multiply.
    pub warp_groups: usize,
    /// Blocks of 64 output features each of them takes.
    pub subtiles: usize,
    /// Blocks of the grid along N that share activations.
    pub cluster: usize,
}

const fn sm90(tile_m: usize, warp_groups: usize, subtiles: usize, cluster: usize) -> Variant {
    Variant {
        kernel: GemmKernel::GemmW4a8Sm90,
        tile_m,
        warp_groups,
        subtiles,
        cluster,
    }
}

/// Everything that exists. The ring takes as many stages as shared memory has room for.
pub const TABLE: &[Variant] = &[
    sm90(8, 2, 1, 1),
    sm90(8, 4, 1, 1),
    sm90(8, 2, 2, 1),
    sm90(16, 2, 1, 1),
    sm90(16, 4, 1, 1),
    sm90(16, 2, 2, 1),
    sm90(32, 2, 1, 1),
    sm90(32, 4, 1, 1),
    sm90(64, 2, 1, 1),
    sm90(64, 2, 2, 1),
    sm90(64, 4, 1, 1),
    sm90(128, 2, 1, 1),
    sm90(128, 3, 1, 1),
    sm90(128, 2, 1, 2),
    sm90(192, 2, 1, 1),
    sm90(192, 2, 1, 2),
    sm90(256, 2, 1, 1),
    sm90(256, 2, 1, 2),
];

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tile_n, groups, subtiles) = (self.tile_n(), self.warp_groups, self.subtiles);
        write!(
            f,
            "m{}n{tile_n}k{BLOCK_K}_w{groups}x{subtiles}_c{}",
            self.tile_m, self.cluster
        )
    }
}

/// Which tiles are cut along K, so that all multiprocessors share them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// None: every tile is one block's.
    Whole,
    /// Those of the last, incomplete round.
    Tail,
    /// All of them.
    All,
}

/// A way to run a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GemmConfig {
    /// What is compiled.
    pub variant: Variant,
    /// Which tiles are cut along K.
    pub split: Split,
}

impl fmt::Display for GemmConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let split = match self.split {
            Split::Whole => "whole",
            Split::Tail => "tail",
            Split::All => "all",
        };
        write!(f, "{}_{split}", self.variant)
    }
}

/// Shared memory a block may use on Hopper.
const SM90_SHARED_BYTES: usize = 232_448;
/// More stages than this hide nothing more.
const MOST_STAGES: usize = 24;
/// Threads of a warp group.
const WARP_GROUP: usize = 128;
/// The ring begins at a multiple of this.
const RING_ALIGNMENT: usize = 1024;

impl Variant {
    /// Output features of a tile.
    pub fn tile_n(&self) -> usize {
        BLOCK_N * self.warp_groups * self.subtiles
    }

    /// Threads of a block.
    pub fn threads(&self) -> usize {
        match self.kernel {
            GemmKernel::GemmW4a8Sm90 => WARP_GROUP * (self.warp_groups + 1),
        }
    }

    /// Slots of the ring in shared memory: as many as fit.
    pub fn stages(&self, group: GroupLength, output: Output) -> usize {
        let (fixed, stage) = (self.fixed_bytes(output), self.stage_bytes(group));
        (SM90_SHARED_BYTES.saturating_sub(fixed) / stage).min(MOST_STAGES)
    }

    /// Dynamic shared memory of a block.
    pub fn shared_bytes(&self, group: GroupLength, output: Output) -> usize {
        self.fixed_bytes(output) + self.stages(group, output) * self.stage_bytes(group)
    }

    /// What the ring leaves: its alignment, outputs on their way out, scales of tokens, a word for each warp group.
    fn fixed_bytes(&self, output: Output) -> usize {
        let staged = self.tile_m >= 32 && output.size_bytes() == 2;
        let staged_tokens = if self.tile_m.is_multiple_of(64) { 64 } else { 32 };
        let staging = if staged { staged_tokens * 128 } else { 0 };
        RING_ALIGNMENT + self.warp_groups * (staging + 8 * self.tile_m + 4)
    }

    /// Bytes of a slot of the ring: activations, packed weights, two barriers.
    fn stage_bytes(&self, group: GroupLength) -> usize {
        let weights = self.warp_groups * self.subtiles * group.block_bytes();
        self.tile_m * BLOCK_K + weights.next_multiple_of(128) + 16
    }

    /// Bytes of memory a step of 128 columns of K reads.
    pub fn step_bytes(&self, group: GroupLength) -> usize {
        self.tile_m * BLOCK_K + self.warp_groups * self.subtiles * group.block_bytes()
    }

    /// The text and macros to compile.
    pub fn source(&self, group: GroupLength, output: Output) -> Source {
        let macros = vec![
            ("TILE_M", self.tile_m as i64),
            ("WARP_GROUPS", self.warp_groups as i64),
            ("SUBTILES", self.subtiles as i64),
            ("STAGES", self.stages(group, output) as i64),
            ("CLUSTER", self.cluster as i64),
            ("GROUP_SIZE", group.code() as i64),
            ("OUT", output.code()),
            // The kernel refuses to compile when it needs more.
            ("SHARED_BYTES", self.shared_bytes(group, output) as i64),
        ];
        Source {
            name: self.kernel.name(),
            text: source::kernel(self.kernel),
            headers: source::HEADERS,
            macros,
        }
    }
}

/// A configuration laid over a product on a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Blocks, threads and shared memory.
    pub launch: Launch,
    /// Tiles, the padding of a cluster among them.
    pub tiles: usize,
    /// The last tiles, which are cut along K.
    pub cut_tiles: usize,
    /// Token tiles that are visited before the next feature tile; 0 means all.
    pub raster_m: usize,
    /// Bytes for the sums of cut tiles.
    pub workspace_bytes: usize,
}

/// Part of the second-level cache that activations may take while weights stream past them.
const RASTER_SHARE: f64 = 0.4;

impl GemmConfig {
    /// Blocks and work of the product on a card.
    pub fn geometry(&self, problem: &GemmProblem, device: &DeviceInfo) -> Geometry {
        let (variant, shape) = (self.variant, problem.shape);
        let n_tiles = shape
            .n
            .div_ceil(variant.tile_n())
            .next_multiple_of(variant.cluster);
        let m_tiles = shape.m.div_ceil(variant.tile_m);
        let tiles = n_tiles * m_tiles;
        let places = (device.num_sms / variant.cluster * variant.cluster).max(variant.cluster);
        let cut_tiles = match self.split {
            Split::Whole => 0,
            Split::Tail => tiles % places,
            Split::All => tiles,
        };
        let work = tiles - cut_tiles + cut_tiles * problem.k_blocks();
        let blocks = places.min(work.next_multiple_of(variant.cluster));
        let accumulators = variant.tile_m * variant.tile_n() * 4;
        let counters = 4 * variant.warp_groups;
        Geometry {
            launch: Launch {
                grid: [blocks as u32, 1, 1],
                threads: variant.threads() as u32,
                shared_bytes: variant.shared_bytes(problem.group, problem.output),
                cluster: variant.cluster as u32,
                programmatic: false,
            },
            tiles,
            cut_tiles,
            raster_m: raster(shape, variant.tile_m, device),
            workspace_bytes: cut_tiles * (accumulators + counters).next_multiple_of(256),
        }
    }
}

/// Token tiles whose activations stay in the second-level cache together.
fn raster(shape: GemmShape, tile_m: usize, device: &DeviceInfo) -> usize {
    let room = device.l2_bytes as f64 * RASTER_SHARE;
    let tiles = (room / (tile_m * shape.k) as f64).floor() as usize;
    if tiles >= shape.m.div_ceil(tile_m) {
        0
    } else {
        tiles.max(1)
    }
}

/// Everything that could run a product on a card.
pub fn enumerate(problem: &GemmProblem, device: &DeviceInfo) -> Vec<GemmConfig> {
    let usable = TABLE.iter().filter(|variant| {
        // A tile of tokens that fits all of them or is not far from it; many tokens take large tiles.
        let m = problem.shape.m;
        let useful = variant.tile_m <= least_tile_m(m) && 4 * variant.tile_m >= m.min(256);
        let shared = variant.shared_bytes(problem.group, problem.output);
        useful && variant.kernel.runs_on(device.capability) && shared <= device.shared_bytes
    });
    let with_splits = usable.flat_map(|&variant| {
        [Split::Whole, Split::Tail, Split::All].map(|split| GemmConfig { variant, split })
    });
    with_splits
        .filter(|config| config.split_is_its_own(problem, device))
        .collect()
}

/// The smallest tile of the table that holds all tokens, or none's bound.
fn least_tile_m(m: usize) -> usize {
    let holding = TABLE
        .iter()
        .map(|variant| variant.tile_m)
        .filter(|&tile_m| tile_m >= m);
    holding.min().unwrap_or(usize::MAX)
}

impl GemmConfig {
    /// Whether no simpler split means the same; two names for one thing would be timed twice.
    fn split_is_its_own(&self, problem: &GemmProblem, device: &DeviceInfo) -> bool {
        let geometry = self.geometry(problem, device);
        match self.split {
            Split::Whole => true,
            Split::Tail => 0 < geometry.cut_tiles && geometry.cut_tiles < geometry.tiles,
            Split::All => problem.k_blocks() > 1,
        }
    }
}

/// Seconds a configuration would take: analytic today, learned from measurements later.
pub trait Cost {
    /// Estimated seconds.
    fn time_s(&self, problem: &GemmProblem, config: &GemmConfig, device: &DeviceInfo) -> f64;
}

/// The cheapest configuration; `None` when no kernel runs the product on the card.
pub fn choose(problem: &GemmProblem, device: &DeviceInfo, cost: &impl Cost) -> Option<GemmConfig> {
    let costs = enumerate(problem, device).into_iter();
    costs
        .map(|config| (cost.time_s(problem, &config, device), config))
        .min_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, config)| config)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the driver says of an H200.
    fn h200() -> DeviceInfo {
        DeviceInfo {
            index: 0,
            name: "NVIDIA H200".to_owned(),
            capability: (9, 0),
            num_sms: 132,
            clock_hz: 1.98e9,
            l2_bytes: 60 << 20,
            shared_bytes: SM90_SHARED_BYTES,
            memory_bytes: 141 << 30,
            memory_bytes_per_s: 4.9e12,
        }
    }

    fn problem(m: usize, n: usize, k: usize) -> GemmProblem {
        GemmProblem {
            shape: GemmShape { m, n, k },
            group: GroupLength::G128,
            output: Output::Bf16,
        }
    }

    /// Takes the first it is offered.
    struct First;

    impl Cost for First {
        fn time_s(&self, _: &GemmProblem, _: &GemmConfig, _: &DeviceInfo) -> f64 {
            1.0
        }
    }

    #[test]
    fn every_variant_fits_shared_memory_with_a_ring_worth_the_name() {
        for variant in TABLE {
            for group in GroupLength::ALL {
                for output in Output::ALL {
                    assert!(
                        variant.shared_bytes(group, output) <= SM90_SHARED_BYTES,
                        "{variant}"
                    );
                    assert!(variant.stages(group, output) >= 4, "{variant}");
                }
            }
        }
    }

    #[test]
    fn every_product_has_configurations_and_their_work_covers_it() {
        for (m, n, k) in [
            (1, 1, 1),
            (17, 4_097, 131_071),
            (64, 8_192, 28_672),
            (4_096, 57_344, 8_192),
        ] {
            let problem = problem(m, n, k);
            let found = enumerate(&problem, &h200());
            assert!(!found.is_empty(), "{m}x{n}x{k}");
            for config in found {
                let geometry = config.geometry(&problem, &h200());
                let (variant, what) = (config.variant, format!("{config} on {m}x{n}x{k}"));
                assert!(
                    geometry.tiles * variant.tile_m * variant.tile_n() >= m * n,
                    "{what}"
                );
                assert!(geometry.cut_tiles <= geometry.tiles, "{what}");
                assert_eq!(geometry.launch.grid[0] as usize % variant.cluster, 0, "{what}");
                assert_eq!(geometry.cut_tiles % variant.cluster, 0, "{what}");
                assert!((1..=132).contains(&geometry.launch.grid[0]), "{what}");
                assert_eq!(geometry.workspace_bytes > 0, geometry.cut_tiles > 0, "{what}");
            }
        }
    }

    #[test]
    fn hopper_kernels_are_offered_to_hopper_only() {
        let other = DeviceInfo {
            capability: (10, 0),
            ..h200()
        };
        let wrong = |config: &GemmConfig| !config.variant.kernel.runs_on(other.capability);
        assert!(!enumerate(&problem(1, 64, 128), &other).iter().any(wrong));
        assert!(choose(&problem(1, 64, 128), &h200(), &First).is_some());
    }

    #[test]
    fn cheapest_configuration_is_chosen_by_whatever_cost_is_given() {
        /// Likes one configuration.
        struct Likes(GemmConfig);
        impl Cost for Likes {
            fn time_s(&self, _: &GemmProblem, config: &GemmConfig, _: &DeviceInfo) -> f64 {
                if *config == self.0 { 1.0 } else { 2.0 }
            }
        }
        let problem = problem(64, 4_096, 4_096);
        for config in enumerate(&problem, &h200()) {
            assert_eq!(choose(&problem, &h200(), &Likes(config)), Some(config));
        }
    }

    #[test]
    fn activations_that_outgrow_the_cache_are_visited_in_parts() {
        let raster = |m, k| raster(GemmShape { m, n: 8_192, k }, 256, &h200());
        assert_eq!(raster(256, 8_192), 0);
        assert_eq!(raster(4_096, 4_096), 0);
        let parts = raster(4_096, 28_672);
        assert!(0 < parts && parts < 16, "{parts}");
    }
}
