//! Which kernels exist in which sizes, and what each size means on a card: the one table, and the formulae beside it.
//!
//! A product goes through `enumerate` (what could run it), `cost` (how long each would take) and `choose`; what is
//! chosen is data, and a cost function that was learned takes the place of the analytic one without touching a kernel.

use std::fmt;

use dualgrain_format::GemmShape;

use super::gemm_w4a8_sm80::GemmSm80;
use super::gemm_w4a8_sm90::GemmSm90;
use super::gemm_w4f_sm90;
use super::gemv_w4a8_sm90::GemvSm90;
use crate::compiler::Source;
use crate::cu;
use crate::driver::{DeviceInfo, Launch};
use crate::gemm::operands::{BLOCK_K, GroupLength};

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
    pub(crate) fn code(self) -> i64 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Bf16 => 2,
            Self::Sums => 3,
        }
    }
}

/// A kernel in one of its sizes: a row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variant {
    /// `gemm_w4a8_sm90`.
    Gemm(GemmSm90),
    /// `gemv_w4a8_sm90`.
    Gemv(GemvSm90),
    /// `gemm_w4a8_sm80`.
    Ampere(GemmSm80),
    /// `gemm_w4f_sm90`, the product with float group scales: never enumerated, for comparison only (`float_scales`).
    FloatScales(GemmSm90),
}

const fn gemm(tile_m: usize, groups: [usize; 2], cluster: usize, split_k: usize) -> Variant {
    Variant::Gemm(GemmSm90 {
        tile_m,
        warp_groups: groups[0],
        subtiles: groups[1],
        cluster,
        split_k,
    })
}

const fn gemv(tile_m: usize, warps: usize, depth: usize, ctas: usize) -> Variant {
    Variant::Gemv(GemvSm90 {
        tile_m,
        warps,
        depth,
        ctas,
    })
}

const fn ampere(tile_m: usize, warps_m: usize, stages: usize, strips: usize) -> Variant {
    Variant::Ampere(GemmSm80 {
        tile_m,
        warps_m,
        stages,
        strips,
    })
}

/// Everything that exists.
pub const TABLE: &[Variant] = &[
    gemv(1, 16, 2, 2),
    gemv(1, 16, 4, 1),
    gemv(2, 16, 4, 1),
    gemv(2, 16, 2, 2),
    gemv(4, 16, 4, 1),
    gemv(4, 16, 2, 2),
    gemv(8, 16, 4, 1),
    gemv(8, 16, 2, 2),
    gemv(16, 16, 4, 1),
    gemm(8, [2, 1], 1, 1),
    gemm(16, [1, 1], 1, 1),
    gemm(16, [1, 1], 1, 2),
    gemm(16, [2, 1], 1, 1),
    gemm(16, [2, 1], 1, 2),
    gemm(16, [3, 1], 1, 1),
    gemm(16, [3, 1], 1, 2),
    gemm(16, [3, 1], 2, 2),
    gemm(32, [2, 1], 1, 1),
    gemm(32, [2, 1], 1, 2),
    gemm(32, [3, 1], 1, 1),
    gemm(32, [3, 1], 1, 2),
    gemm(64, [1, 1], 1, 1),
    gemm(64, [1, 1], 1, 2),
    gemm(64, [2, 1], 1, 1),
    gemm(64, [2, 1], 1, 2),
    gemm(64, [3, 1], 1, 1),
    gemm(64, [3, 1], 1, 2),
    gemm(64, [2, 2], 2, 1),
    gemm(128, [1, 1], 2, 1),
    gemm(128, [2, 1], 1, 1),
    gemm(128, [2, 1], 1, 2),
    gemm(128, [2, 2], 2, 1),
    gemm(128, [3, 1], 1, 1),
    gemm(128, [3, 1], 2, 1),
    gemm(256, [2, 1], 1, 1),
    gemm(256, [2, 1], 2, 1),
    gemm(256, [2, 1], 1, 2),
    ampere(16, 1, 8, 2),
    ampere(32, 2, 7, 2),
    ampere(64, 2, 4, 2),
    ampere(128, 2, 3, 2),
    ampere(128, 2, 4, 4),
];

/// Which tiles are cut along K, so that all multiprocessors share them through memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// None: every tile is one CTA's, or one cluster's.
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
            Split::Whole => "",
            Split::Tail => "_tail",
            Split::All => "_all",
        };
        write!(f, "{}{split}", self.variant)
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gemm(gemm) => gemm.fmt(f),
            Self::Gemv(gemv) => gemv.fmt(f),
            Self::Ampere(ampere) => ampere.fmt(f),
            Self::FloatScales(gemm) => gemm.fmt(f),
        }
    }
}

impl Variant {
    /// The kernel's symbol, file, and key in records.
    pub fn kernel(&self) -> &'static str {
        match self {
            Self::Gemm(_) => "gemm_w4a8_sm90",
            Self::Gemv(_) => "gemv_w4a8_sm90",
            Self::Ampere(_) => "gemm_w4a8_sm80",
            Self::FloatScales(_) => "gemm_w4f_sm90",
        }
    }

    /// Whether the kernel runs on a compute capability. wgmma is Hopper's alone.
    pub fn runs_on(&self, capability: (i32, i32)) -> bool {
        match self {
            Self::Gemm(_) | Self::FloatScales(_) => capability == (9, 0),
            Self::Gemv(_) | Self::Ampere(_) => capability >= (8, 0),
        }
    }

    /// Whether the kernel is compiled with these: its ring fits shared memory, its numbers fit registers.
    pub fn exists(&self, group: GroupLength, output: Output) -> bool {
        match self {
            Self::Gemm(gemm) => gemm.exists(group, output),
            Self::Gemv(gemv) => gemv.exists(group),
            Self::Ampere(_) => true,
            Self::FloatScales(gemm) => gemm_w4f_sm90::exists(gemm, group, output),
        }
    }

    /// Tokens of a tile.
    pub fn tile_m(&self) -> usize {
        match self {
            Self::Gemm(gemm) | Self::FloatScales(gemm) => gemm.tile_m,
            Self::Gemv(gemv) => gemv.tile_m,
            Self::Ampere(ampere) => ampere.tile_m,
        }
    }

    /// Output features of a tile.
    pub fn tile_n(&self) -> usize {
        match self {
            Self::Gemm(gemm) | Self::FloatScales(gemm) => gemm.tile_n(),
            Self::Gemv(gemv) => gemv.tile_n(),
            Self::Ampere(ampere) => ampere.tile_n(),
        }
    }

    /// Threads of a CTA.
    pub fn threads(&self) -> usize {
        match self {
            Self::Gemm(gemm) | Self::FloatScales(gemm) => gemm.threads(),
            Self::Gemv(gemv) => gemv.threads(),
            Self::Ampere(ampere) => ampere.threads(),
        }
    }

    /// The text and macros to compile.
    pub fn source(&self, group: GroupLength, output: Output) -> Source {
        let mut macros = match self {
            Self::Gemm(gemm) | Self::FloatScales(gemm) => gemm.macros(group, output),
            Self::Gemv(gemv) => gemv.macros(),
            Self::Ampere(ampere) => ampere.macros(),
        };
        macros.extend([("GROUP_SIZE", group.code() as i64), ("OUT", output.code())]);
        Source {
            name: self.kernel(),
            text: cu::kernel(self),
            headers: cu::HEADERS,
            macros,
        }
    }

    fn splits(&self) -> &'static [Split] {
        match self {
            Self::Gemm(gemm) => gemm.splits(),
            Self::Ampere(_) => &[Split::Whole, Split::All],
            Self::Gemv(_) | Self::FloatScales(_) => &[Split::Whole],
        }
    }

    /// Whether it can run a product on a card.
    pub fn can_run(&self, problem: &GemmProblem, device: &DeviceInfo) -> bool {
        self.runs_on(device.capability)
            && self.exists(problem.group, problem.output)
            && match self {
                Self::Gemm(gemm) | Self::FloatScales(gemm) => {
                    gemm.shared_bytes(problem.group, problem.output) <= device.shared_bytes
                }
                Self::Gemv(gemv) => gemv.fits(problem, device),
                Self::Ampere(ampere) => ampere.shared_bytes(problem.group) <= device.shared_bytes,
            }
    }

    /// Whether the card has kernels of its own that are always faster: 1.25 to 2.5 times on an H200.
    fn stands_in(&self, device: &DeviceInfo) -> bool {
        matches!(self, Self::Ampere(_)) && device.capability == (9, 0)
    }

    /// Whether its tiles are not out of proportion to the tokens.
    fn suits(&self, m: usize) -> bool {
        match self {
            // Below 16 tokens the tile costs next to nothing.
            Self::Gemm(gemm) | Self::FloatScales(gemm) => {
                gemm.tile_m <= least_tile_m(m.max(16)) && 4 * gemm.tile_m >= m.min(256)
            }
            Self::Gemv(gemv) => gemv.tile_m < 2 * m,
            Self::Ampere(ampere) => ampere.tile_m < 2 * m.max(16) && 8 * ampere.tile_m >= m.min(512),
        }
    }
}

/// The smallest tile of the table's products that holds all tokens; no bound when none does.
fn least_tile_m(m: usize) -> usize {
    let tiles = TABLE.iter().filter_map(|variant| match variant {
        Variant::Gemm(gemm) => Some(gemm.tile_m),
        Variant::Gemv(_) | Variant::Ampere(_) | Variant::FloatScales(_) => None,
    });
    tiles.filter(|&tile_m| tile_m >= m).min().unwrap_or(usize::MAX)
}

/// A configuration laid over a product on a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// CTAs, threads and shared memory.
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

/// With fewer rounds of tiles than these the last one counts.
const FEW_ROUNDS: usize = 4;

impl GemmConfig {
    /// CTAs and work of the product on a card.
    pub fn geometry(&self, problem: &GemmProblem, device: &DeviceInfo) -> Geometry {
        match self.variant {
            Variant::Gemm(gemm) | Variant::FloatScales(gemm) => gemm.geometry(self.split, problem, device),
            Variant::Gemv(gemv) => gemv.geometry(problem, device),
            Variant::Ampere(ampere) => ampere.geometry(self.split, problem, device),
        }
    }

    /// Whether no simpler split means the same; two names for one thing would be timed twice.
    fn split_is_its_own(&self, problem: &GemmProblem, device: &DeviceInfo) -> bool {
        let geometry = self.geometry(problem, device);
        match self.split {
            Split::Whole => true,
            Split::Tail => 0 < geometry.cut_tiles && geometry.cut_tiles < geometry.tiles,
            Split::All => problem.k_blocks() > 1 && geometry.cut_tiles > 0,
        }
    }
}

/// Splits that a variant has.
pub(crate) fn splits_of(variant: &Variant) -> &'static [Split] {
    variant.splits()
}

/// Everything worth a thought for a product on a card.
pub fn enumerate(problem: &GemmProblem, device: &DeviceInfo) -> Vec<GemmConfig> {
    let mut configs = sensible(problem, device);
    configs.retain(|config| !config.variant.stands_in(device));
    configs
}

/// Kernels for other cards that could run a product on this one, for timing them where no such card is.
pub fn stand_ins(problem: &GemmProblem, device: &DeviceInfo) -> Vec<GemmConfig> {
    let mut configs = sensible(problem, device);
    configs.retain(|config| config.variant.stands_in(device));
    configs
}

fn sensible(problem: &GemmProblem, device: &DeviceInfo) -> Vec<GemmConfig> {
    let runnable = enumerate_all(problem, device).into_iter();
    // Of many rounds the last, incomplete one is not worth cutting tiles for.
    let rounds = |config: &GemmConfig| {
        let geometry = config.geometry(problem, device);
        geometry.tiles / geometry.launch.grid[0] as usize
    };
    let sensible = |config: &GemmConfig| {
        config.variant.suits(problem.shape.m) && (config.split == Split::Whole || rounds(config) < FEW_ROUNDS)
    };
    runnable.filter(sensible).collect()
}

/// Everything that runs a product on a card, sensible or not.
pub fn enumerate_all(problem: &GemmProblem, device: &DeviceInfo) -> Vec<GemmConfig> {
    let runnable = TABLE.iter().filter(|variant| variant.can_run(problem, device));
    let configs = runnable.flat_map(|&variant| {
        let splits = variant.splits().iter();
        splits.map(move |&split| GemmConfig { variant, split })
    });
    configs
        .filter(|config| config.split_is_its_own(problem, device))
        .collect()
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
    fn no_row_of_the_table_is_there_twice() {
        for (i, variant) in TABLE.iter().enumerate() {
            assert!(!TABLE[..i].contains(variant), "{variant}");
        }
    }

    #[test]
    fn shared_memory_is_what_the_kernels_lay_out() {
        // Read off the kernels' own constants.
        for (variant, group, output, expected) in [
            (
                gemm(64, [2, 1], 1, 1),
                GroupLength::G128,
                Output::F16,
                (12, 218_344),
            ),
            (
                gemm(16, [2, 1], 1, 1),
                GroupLength::G128,
                Output::F16,
                (21, 226_168),
            ),
            (
                gemm(64, [2, 1], 1, 2),
                GroupLength::G32,
                Output::Sums,
                (12, 227_560),
            ),
            (
                gemm(256, [2, 1], 1, 2),
                GroupLength::G128,
                Output::Bf16,
                (3, 210_776),
            ),
        ] {
            let Variant::Gemm(gemm) = variant else {
                unreachable!()
            };
            let got = (gemm.stages(group, output), gemm.shared_bytes(group, output));
            assert_eq!(got, expected, "{variant}");
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
            let found = enumerate(&problem, &DeviceInfo::h200());
            assert!(!found.is_empty(), "{m}x{n}x{k}");
            for config in found {
                let geometry = config.geometry(&problem, &DeviceInfo::h200());
                let (variant, what) = (config.variant, format!("{config} on {m}x{n}x{k}"));
                let covered = geometry.tiles * variant.tile_m() * variant.tile_n();
                assert!(covered >= m * n, "{what}");
                assert!(geometry.cut_tiles <= geometry.tiles, "{what}");
                let Launch {
                    grid,
                    cluster,
                    shared_bytes,
                    ..
                } = geometry.launch;
                assert!(grid[0] > 0 && grid[0].is_multiple_of(cluster), "{what}");
                assert!(shared_bytes <= DeviceInfo::h200().shared_bytes, "{what}");
                assert!(variant.exists(problem.group, problem.output), "{what}");
                assert_eq!(geometry.workspace_bytes > 0, geometry.cut_tiles > 0, "{what}");
            }
        }
    }

    #[test]
    fn hopper_kernels_are_offered_to_hopper_only() {
        let other = DeviceInfo {
            capability: (10, 0),
            ..DeviceInfo::h200()
        };
        let wrong = |config: &GemmConfig| !config.variant.runs_on(other.capability);
        assert!(!enumerate(&problem(1, 64, 128), &other).iter().any(wrong));
        assert!(choose(&problem(1, 64, 128), &DeviceInfo::h200(), &First).is_some());
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
        for config in enumerate(&problem, &DeviceInfo::h200()) {
            assert_eq!(
                choose(&problem, &DeviceInfo::h200(), &Likes(config)),
                Some(config)
            );
        }
    }

    #[test]
    fn activations_that_outgrow_the_cache_are_visited_in_parts() {
        let raster = |m, k| {
            let config = GemmConfig {
                variant: gemm(256, [2, 1], 1, 1),
                split: Split::Whole,
            };
            config
                .geometry(&problem(m, 8_192, k), &DeviceInfo::h200())
                .raster_m
        };
        assert_eq!(raster(256, 8_192), 0);
        assert_eq!(raster(4_096, 4_096), 0);
        let parts = raster(4_096, 28_672);
        assert!(0 < parts && parts < 16, "{parts}");
    }
}
