//! The configuration that a product is run with.

use super::analytic::Analytic;
use super::candidates::enumerate;
use super::cost::Cost;
use super::selection_table::SelectionTable;
use crate::driver::GpuInfo;
use crate::gemm::kernels::GemmConfig;
use crate::gemm::problem::GemmProblem;

/// The cheapest configuration; `None` when no kernel runs the product on the card.
pub fn choose(problem: &GemmProblem, gpu: &GpuInfo, cost: &impl Cost) -> Option<GemmConfig> {
    let costs = enumerate(problem, gpu).into_iter();
    costs
        .map(|config| (cost.time_s(problem, &config, gpu), config))
        .min_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, config)| config)
}

/// The configuration a product is run with: that of the card's table, else the cheapest by formula. `None` when no kernel
/// runs the product on the card.
pub fn select(problem: &GemmProblem, gpu: &GpuInfo) -> Option<GemmConfig> {
    let selected = SelectionTable::of(gpu).and_then(|table| table.choose(problem, gpu));
    selected.or_else(|| choose(problem, gpu, &Analytic))
}

#[cfg(test)]
mod tests {
    use dualgrain_format::{GemmShape, GroupSize};

    use super::*;
    use crate::gemm::kernels::Split;
    use crate::gemm::problem::Output;

    /// With the read rate that the constants were fitted at.
    fn h200() -> GpuInfo {
        GpuInfo {
            memory_bytes_per_s: 4.917e12,
            ..GpuInfo::h200()
        }
    }

    fn problem(m: usize, n: usize, k: usize) -> GemmProblem {
        GemmProblem {
            shape: GemmShape { m, n, k },
            group: GroupSize::Along(128),
            output: Output::F16,
        }
    }

    #[test]
    fn cheapest_configuration_is_chosen_by_whatever_cost_is_given() {
        /// Likes one configuration.
        struct Likes(GemmConfig);
        impl Cost for Likes {
            fn time_s(&self, _: &GemmProblem, config: &GemmConfig, _: &GpuInfo) -> f64 {
                if *config == self.0 { 1.0 } else { 2.0 }
            }
        }
        let problem = problem(64, 4_096, 4_096);
        for config in enumerate(&problem, &h200()) {
            assert_eq!(choose(&problem, &h200(), &Likes(config)), Some(config));
        }
    }

    #[test]
    fn measured_winners_are_chosen_where_they_won_clearly() {
        // Fastest by 3 % or more on an H200.
        for ((m, n, k), winner) in [
            ((1, 4_096, 4_096), "m1n16k128_v16_d2_x2"),
            ((16, 4_096, 4_096), "m16n64k128_w1x1_c1_k2"),
            ((16, 4_096, 11_008), "m16n64k128_w1x1_c1_k2"),
            ((16, 22_016, 4_096), "m16n192k128_w3x1_c1_k1"),
            ((16, 10_240, 8_192), "m16n192k128_w3x1_c1_k2"),
            ((64, 8_192, 28_672), "m64n128k128_w2x1_c1_k2"),
            ((64, 4_096, 11_008), "m64n64k128_w1x1_c1_k2"),
            ((256, 12_288, 4_096), "m128n192k128_w3x1_c1_k1"),
            ((256, 8_192, 28_672), "m256n128k128_w2x1_c1_k2"),
            ((1_024, 8_192, 28_672), "m256n128k128_w2x1_c2_k1"),
        ] {
            let chosen = choose(&problem(m, n, k), &h200(), &Analytic).unwrap();
            assert_eq!(chosen.to_string(), winner, "{m}x{n}x{k}");
        }
    }

    #[test]
    fn recorded_choices_are_those_of_today() {
        let record = include_str!("../../../../../bench/record/2026-11-22_h200_gemm.csv");
        let mut lines = record.lines().filter(|line| !line.starts_with('#'));
        let header: Vec<&str> = lines.next().unwrap().split(',').collect();
        let column = |name: &str| header.iter().position(|&column| column == name).unwrap();
        let [m, n, k] = ["m", "n", "k"].map(column);
        let (config, chosen) = (column("config"), column("chosen"));
        let mut compared = 0;
        for line in lines {
            let fields: Vec<&str> = line.split(',').collect();
            let size = |at: usize| fields[at].parse().unwrap();
            let problem = GemmProblem {
                output: Output::Bf16,
                ..problem(size(m), size(n), size(k))
            };
            let today = select(&problem, &h200()).unwrap().to_string();
            assert_eq!(
                fields[chosen] == "true",
                fields[config] == today,
                "{line}: {today}"
            );
            compared += 1;
        }
        // Eight shapes, six numbers of tokens.
        assert_eq!(compared, 48);
    }

    #[test]
    fn ampere_cuts_k_where_tiles_are_few_and_takes_large_tiles_where_they_are_many() {
        let ampere = GpuInfo {
            capability: (8, 0),
            ..h200()
        };
        for (m, splits, tile_n) in [
            (64, Split::All, 128),
            (256, Split::All, 128),
            (4_096, Split::Whole, 256),
        ] {
            let chosen = choose(&problem(m, 4_096, 11_008), &ampere, &Analytic).unwrap();
            assert_eq!(
                (chosen.split, chosen.variant.tile_n()),
                (splits, tile_n),
                "M = {m}: {chosen}"
            );
        }
    }
}
