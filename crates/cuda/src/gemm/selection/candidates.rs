//! What could run a product on a card, and what of it is worth a thought.

use crate::driver::GpuInfo;
use crate::gemm::kernels::{GemmConfig, Split, TABLE, Variant};
use crate::gemm::problem::GemmProblem;

/// With fewer rounds of tiles than these the last one counts.
const FEW_ROUNDS: usize = 4;

/// Everything worth a thought for a product on a card.
pub fn enumerate(problem: &GemmProblem, gpu: &GpuInfo) -> Vec<GemmConfig> {
    let mut configs = sensible(problem, gpu);
    configs.retain(|config| !stands_in(&config.variant, gpu));
    configs
}

/// Kernels for other cards that could run a product on this one, for timing them where no such card is.
pub fn stand_ins(problem: &GemmProblem, gpu: &GpuInfo) -> Vec<GemmConfig> {
    let mut configs = sensible(problem, gpu);
    configs.retain(|config| stands_in(&config.variant, gpu));
    configs
}

fn sensible(problem: &GemmProblem, gpu: &GpuInfo) -> Vec<GemmConfig> {
    let runnable = enumerate_all(problem, gpu).into_iter();
    // Of many rounds the last, incomplete one is not worth cutting tiles for.
    let rounds = |config: &GemmConfig| {
        let geometry = config.geometry(problem, gpu);
        geometry.tiles / geometry.launch.grid[0] as usize
    };
    let sensible = |config: &GemmConfig| {
        suits(&config.variant, problem.shape.m)
            && (config.split == Split::Whole || rounds(config) < FEW_ROUNDS)
    };
    runnable.filter(sensible).collect()
}

/// Everything that runs a product on a card, sensible or not.
pub fn enumerate_all(problem: &GemmProblem, gpu: &GpuInfo) -> Vec<GemmConfig> {
    let runnable = TABLE.iter().filter(|variant| variant.can_run(problem, gpu));
    let configs = runnable.flat_map(|&variant| {
        let splits = variant.splits().iter();
        splits.map(move |&split| GemmConfig { variant, split })
    });
    configs
        .filter(|config| config.split_is_its_own(problem, gpu))
        .collect()
}

/// Whether the card has kernels of its own that are always faster: 1.25 to 2.5 times on an H200.
fn stands_in(variant: &Variant, gpu: &GpuInfo) -> bool {
    matches!(variant, Variant::Ampere(_)) && gpu.capability == (9, 0)
}

/// Whether the tiles of a kernel are not out of proportion to the tokens.
fn suits(variant: &Variant, m: usize) -> bool {
    match variant {
        // Below 16 tokens the tile costs next to nothing.
        Variant::Gemm(gemm) | Variant::FloatScales(gemm) => {
            gemm.tile_m <= least_tile_m(m.max(16)) && 4 * gemm.tile_m >= m.min(256)
        }
        Variant::Gemv(gemv) => gemv.tile_m < 2 * m,
        Variant::Ampere(ampere) => ampere.tile_m < 2 * m.max(16) && 8 * ampere.tile_m >= m.min(512),
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

#[cfg(test)]
mod tests {
    use dualgrain_format::{GemmShape, GroupSize};

    use super::*;
    use crate::driver::Launch;
    use crate::gemm::problem::Output;

    fn problem(m: usize, n: usize, k: usize) -> GemmProblem {
        GemmProblem {
            shape: GemmShape { m, n, k },
            group: GroupSize::Along(128),
            output: Output::Bf16,
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
            let found = enumerate(&problem, &GpuInfo::h200());
            assert!(!found.is_empty(), "{m}x{n}x{k}");
            for config in found {
                let geometry = config.geometry(&problem, &GpuInfo::h200());
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
                assert!(shared_bytes <= GpuInfo::h200().shared_bytes, "{what}");
                assert!(variant.exists(problem.group, problem.output), "{what}");
                assert_eq!(geometry.workspace_bytes > 0, geometry.cut_tiles > 0, "{what}");
            }
        }
    }

    #[test]
    fn hopper_kernels_are_offered_to_hopper_only() {
        let other = GpuInfo {
            capability: (10, 0),
            ..GpuInfo::h200()
        };
        let wrong = |config: &GemmConfig| !config.variant.runs_on(other.capability);
        assert!(!enumerate(&problem(1, 64, 128), &other).iter().any(wrong));
        assert!(!enumerate(&problem(1, 64, 128), &GpuInfo::h200()).is_empty());
    }
}
