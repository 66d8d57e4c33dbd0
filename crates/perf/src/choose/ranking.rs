//! Ranks the configurations that can run a product by time, energy or both.

use crate::error::PerfError;
use crate::group_number;
use crate::predict::{KernelConfig, Model, Objective, Prediction, answers_to, in_groups_of};
use crate::product::Product;

impl Model {
    /// The configuration that is best for a product, of one kernel (`gemm_w4a8_sm90`) or of all that multiply the same
    /// types (`w4a8`, `bf16`).
    ///
    /// # Errors
    /// A product no machine runs, a kernel that was not measured, energy asked for where none was measured.
    pub fn best(
        &self,
        kernel: &str,
        product: &Product<'_>,
        by: Objective,
    ) -> Result<(&KernelConfig, Prediction), PerfError> {
        let candidates = self.candidates(kernel, product)?;
        let costs = candidates.filter_map(|(facts, prediction)| {
            let cost = prediction.cost(by)?;
            Some(((prediction.extrapolated, cost), (facts, prediction)))
        });
        let best =
            costs.min_by(|(left, _), (right, _)| left.0.cmp(&right.0).then(left.1.total_cmp(&right.1)));
        best.map(|(_, found)| found)
            .ok_or_else(|| self.nothing_to_rank(kernel, product, by))
    }

    /// All configurations that can run a product, the best first; those outside what they were measured with come last.
    ///
    /// # Errors
    /// As [`Model::best`].
    pub fn ranked(
        &self,
        kernel: &str,
        product: &Product<'_>,
        by: Objective,
    ) -> Result<Vec<(&KernelConfig, Prediction)>, PerfError> {
        let candidates = self.candidates(kernel, product)?;
        let mut ranked: Vec<_> = candidates
            .filter_map(|(facts, prediction)| Some((prediction.cost(by)?, facts, prediction)))
            .collect();
        ranked.sort_by(|left, right| {
            let late = left.2.extrapolated.cmp(&right.2.extrapolated);
            late.then(left.0.total_cmp(&right.0))
        });
        if ranked.is_empty() {
            return Err(self.nothing_to_rank(kernel, product, by));
        }
        Ok(ranked
            .into_iter()
            .map(|(_, facts, prediction)| (facts, prediction))
            .collect())
    }

    fn candidates<'a, 'q>(
        &'a self,
        kernel: &'q str,
        product: &'q Product<'q>,
    ) -> Result<impl Iterator<Item = (&'a KernelConfig, Prediction)> + use<'a, 'q>, PerfError> {
        product.check()?;
        self.answering_to(kernel)?;
        let configs = self.parts.config_index.configs.iter().enumerate();
        let of_kernel = configs.filter(move |(_, facts)| answers_to(&facts.kernel, kernel));
        if let Some((at, _)) = of_kernel.clone().next() {
            // Kernels that answer to one word hold operands of one size.
            let roofline = self.physics(at, product).roofline;
            roofline.check_fits(product, &self.parts.machine)?;
        }
        Ok(of_kernel
            .filter(move |&(at, facts)| self.is_meant(at, product) && facts.check(product).is_ok())
            .map(move |(at, facts)| {
                let asked = in_groups_of(facts, product);
                let physics = self.physics(at, &asked);
                (facts, self.predict_at(at, true, &asked, &physics))
            }))
    }

    /// Whether a configuration has a product's groups and output.
    fn is_meant(&self, config: usize, product: &Product<'_>) -> bool {
        let config_index = &self.parts.config_index;
        let facts = &config_index.configs[config];
        in_groups_of(facts, product).group_size == facts.group_size && config_index.writes(config, product)
    }

    fn nothing_to_rank(&self, kernel: &str, product: &Product<'_>, by: Objective) -> PerfError {
        if by != Objective::Time && self.parts.power_width.is_none() {
            return PerfError::TooLittle {
                what: format!("energy of products on {}", self.machine().name),
                expected: "rows with power, or a choice by time".to_owned(),
                got: "not measured".to_owned(),
            };
        }
        let configs = self.parts.config_index.configs.iter().enumerate();
        let of_kernel = || {
            configs
                .clone()
                .filter(|(_, facts)| answers_to(&facts.kernel, kernel))
        };
        let meant = of_kernel().filter(|&(at, _)| self.is_meant(at, product));
        // Of strips, the one that takes most tokens says why not even it will do.
        let widest = meant.max_by_key(|(_, facts)| facts.tile_m);
        if let Some(refusal) = widest.and_then(|(_, facts)| facts.check(product).err()) {
            return refusal;
        }
        let mut measured: Vec<String> = of_kernel()
            .map(|(_, facts)| format!("group {} to {}", group_number::of(facts.group_size), facts.output))
            .collect();
        measured.sort();
        measured.dedup();
        let output = match product.output {
            "" => String::new(),
            output => format!(" and output {output}"),
        };
        PerfError::UnknownConfig {
            kernel: kernel.to_owned(),
            got: format!("for groups of {}{output}", group_number::of(product.group_size)),
            hint: format!("measured were {}", measured.join(", ")),
        }
    }
}
