//! A fitted model of one machine: a catalogue of configurations, and what products take in each.

use std::path::Path;

use super::config_index::{Catalogue, meant};
use super::estimator::Estimator;
use super::features::Physics;
use super::file;
use super::interval_width::Spread;
use super::prediction::{By, Interval, Prediction};
use crate::error::PerfError;
use crate::learn::FitReport;
use crate::machine::Machine;
use crate::product::{ConfigFacts, Product, Query};

/// A fitted model of one machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    parts: Parts,
}

/// What a model consists of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parts {
    pub machine: Machine,
    pub catalogue: Catalogue,
    pub estimator: Estimator,
    pub time_spread: Spread,
    /// Of power, and of each kernel the scale of energy's intervals.
    pub power_spread: Option<(Spread, Vec<f64>)>,
    pub report: FitReport,
}

/// Fitted files that come with the program.
const FILES: [(&str, &[u8]); 2] = [
    ("h200", include_bytes!("../../models/h200.dgm")),
    ("xeon-amx", include_bytes!("../../models/xeon-amx.dgm")),
];

impl Model {
    /// Machines whose fitted models come with the program.
    pub fn shipped_machines() -> impl Iterator<Item = &'static str> {
        FILES.iter().map(|(machine, _)| *machine)
    }

    /// The model that comes with the program for a machine: `h200`, `xeon-amx`.
    ///
    /// # Errors
    /// There is none for the machine.
    pub fn shipped(machine: &str) -> Result<Self, PerfError> {
        match FILES.iter().find(|(name, _)| *name == machine) {
            Some((name, bytes)) => file::read(bytes, Path::new(name)).map(Self::from_parts),
            None => Err(PerfError::NoModel {
                machine: machine.to_owned(),
                hint: meant(machine, Self::shipped_machines()),
            }),
        }
    }

    /// The model that comes with the program for a machine that names itself so.
    pub fn shipped_for(name: &str, num_units: usize) -> Option<Self> {
        let models = FILES
            .iter()
            .filter_map(|(key, bytes)| file::read(bytes, Path::new(key)).ok());
        let of_machine = |parts: &Parts| parts.machine.name == name && parts.machine.num_units == num_units;
        models
            .map(Self::from_parts)
            .find(|model| of_machine(&model.parts))
    }

    /// Reads a fitted file.
    ///
    /// # Errors
    /// A file that is missing, damaged, of another version, or no model.
    pub fn read(path: &Path) -> Result<Self, PerfError> {
        let bytes = std::fs::read(path).map_err(PerfError::io(path))?;
        file::read(&bytes, path).map(Self::from_parts)
    }

    /// Writes a fitted file; what was there is replaced only when all is written.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), PerfError> {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".part");
        std::fs::write(&aside, file::write(&self.parts)).map_err(PerfError::io(&aside))?;
        std::fs::rename(&aside, path).map_err(PerfError::io(path))
    }

    pub(crate) fn from_parts(parts: Parts) -> Self {
        Self { parts }
    }

    /// The machine it was fitted to.
    pub fn machine(&self) -> &Machine {
        &self.parts.machine
    }

    /// How it was fitted, how good it is, what matters.
    pub fn report(&self) -> &FitReport {
        &self.parts.report
    }

    /// Kernels it knows, in alphabetical order.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.parts
            .catalogue
            .kernels
            .iter()
            .map(|kernel| kernel.name.as_str())
    }

    /// Configurations of a kernel, each in the group lengths and output types that were measured.
    pub fn configs(&self, kernel: &str) -> &[ConfigFacts] {
        &self.parts.catalogue.configs[self.parts.catalogue.range_of(kernel)]
    }

    /// What a product costs in one configuration. Allocates nothing.
    ///
    /// # Errors
    /// A product no machine, or not this kernel, runs; a kernel or configuration that was not measured.
    pub fn predict(&self, query: &Query<'_>) -> Result<Prediction, PerfError> {
        query.product.check()?;
        let (config, exact) = self.parts.catalogue.find(query)?;
        self.parts.catalogue.configs[config].check(&query.product)?;
        let physics = self.physics(config, &query.product);
        physics.work.check_fits(&query.product, &self.parts.machine)?;
        Ok(self.predict_at(config, exact, &query.product, &physics))
    }

    /// What a product costs in the configuration of a name, of one kernel or of all that multiply the same types and have it, the
    /// fastest first.
    ///
    /// # Errors
    /// As [`Model::predict`], of the last kernel where none runs the product.
    pub fn in_config(
        &self,
        kernel: &str,
        config: &str,
        product: &Product<'_>,
    ) -> Result<Vec<(&ConfigFacts, Prediction)>, PerfError> {
        product.check()?;
        let (mut predictions, mut refusal, mut others) = (Vec::new(), None, Vec::new());
        for kernel in self.answering_to(kernel)? {
            let configs = self.configs(kernel);
            let Some(facts) = configs.iter().find(|facts| facts.config == config) else {
                others.extend(configs.iter().map(|facts| facts.config.as_str()));
                continue;
            };
            let query = Query {
                kernel,
                config,
                product: in_groups_of(facts, product),
            };
            let (at, _) = self.parts.catalogue.find(&query)?;
            match self.predict(&query) {
                Ok(prediction) => predictions.push((&self.parts.catalogue.configs[at], prediction)),
                Err(error) => refusal = Some(error),
            }
        }
        if predictions.is_empty() {
            others.sort_unstable();
            return Err(refusal.unwrap_or_else(|| PerfError::UnknownConfig {
                kernel: kernel.to_owned(),
                got: format!("{config:?}"),
                hint: meant(config, others.into_iter()),
            }));
        }
        predictions.sort_by(|left, right| left.1.time_s.value.total_cmp(&right.1.time_s.value));
        Ok(predictions)
    }

    /// The kernels that a name means.
    fn answering_to(&self, asked: &str) -> Result<Vec<&str>, PerfError> {
        let kernels: Vec<&str> = self
            .kernels()
            .filter(|kernel| answers_to(kernel, asked))
            .collect();
        match kernels.is_empty() {
            true => Err(self.parts.catalogue.unknown_kernel(asked)),
            false => Ok(kernels),
        }
    }

    fn physics(&self, config: usize, product: &Product<'_>) -> Physics {
        let catalogue = &self.parts.catalogue;
        let operands = &catalogue.operands[catalogue.kernel_of[config]];
        Physics::new(&catalogue.configs[config], operands, product, &self.parts.machine)
    }

    fn predict_at(&self, config: usize, exact: bool, product: &Product<'_>, physics: &Physics) -> Prediction {
        let Parts {
            machine,
            catalogue,
            estimator,
            time_spread,
            power_spread,
            ..
        } = &self.parts;
        let kernel = catalogue.kernel_of[config];
        let estimate = estimator.estimate(catalogue, config, product, physics, machine);
        let time_width = time_spread.of(&estimate.features, kernel);
        let time_s = Interval::around(estimate.log_time.exp(), time_width);
        let power = estimate.log_power.zip(power_spread.as_ref());
        let energy = power.map(|(log_power, (spread, energy_scales))| {
            let width = spread.of(&estimate.features, kernel);
            let value = (estimate.log_time + log_power).exp();
            (
                Interval::around(log_power.exp(), width),
                Interval::around(value, energy_scales[kernel] * time_width.hypot(width)),
            )
        });
        Prediction {
            time_s,
            power_w: energy.map(|(power_w, _)| power_w),
            energy_j: energy.map(|(_, energy_j)| energy_j),
            ops_per_s: time_s.rate(physics.work.ops),
            ops_per_j: energy.map(|(_, energy_j)| energy_j.rate(physics.work.ops)),
            extrapolated: !(exact && catalogue.covers(config, product)),
        }
    }

    /// The configuration that is best for a product, of one kernel (`gemm_w4a8_sm90`) or of all that multiply the same
    /// types (`w4a8`, `bf16`).
    ///
    /// # Errors
    /// A product no machine runs, a kernel that was not measured, energy asked for where none was measured.
    pub fn best(
        &self,
        kernel: &str,
        product: &Product<'_>,
        by: By,
    ) -> Result<(&ConfigFacts, Prediction), PerfError> {
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
        by: By,
    ) -> Result<Vec<(&ConfigFacts, Prediction)>, PerfError> {
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
    ) -> Result<impl Iterator<Item = (&'a ConfigFacts, Prediction)> + use<'a, 'q>, PerfError> {
        product.check()?;
        self.answering_to(kernel)?;
        let configs = self.parts.catalogue.configs.iter().enumerate();
        let of_kernel = configs.filter(move |(_, facts)| answers_to(&facts.kernel, kernel));
        if let Some((at, _)) = of_kernel.clone().next() {
            // Kernels that answer to one word hold operands of one size.
            let work = self.physics(at, product).work;
            work.check_fits(product, &self.parts.machine)?;
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
        let catalogue = &self.parts.catalogue;
        let facts = &catalogue.configs[config];
        in_groups_of(facts, product).group_size == facts.group_size && catalogue.writes(config, product)
    }

    fn nothing_to_rank(&self, kernel: &str, product: &Product<'_>, by: By) -> PerfError {
        if by != By::Time && self.parts.power_spread.is_none() {
            return PerfError::TooLittle {
                what: format!("energy of products on {}", self.machine().name),
                expected: "rows with power, or a choice by time".to_owned(),
                got: "not measured".to_owned(),
            };
        }
        let configs = self.parts.catalogue.configs.iter().enumerate();
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
            .map(|(_, facts)| format!("group {} to {}", facts.group_size, facts.output))
            .collect();
        measured.sort();
        measured.dedup();
        let output = match product.output {
            "" => String::new(),
            output => format!(" and output {output}"),
        };
        PerfError::UnknownConfig {
            kernel: kernel.to_owned(),
            got: format!("for groups of {}{output}", product.group_size),
            hint: format!("measured were {}", measured.join(", ")),
        }
    }
}

/// A product as a configuration's kernel takes it: kernels without groups take any.
fn in_groups_of<'a>(facts: &ConfigFacts, product: &Product<'a>) -> Product<'a> {
    let group_size = match facts.kernel.contains("w4") {
        true => product.group_size,
        false => facts.group_size,
    };
    Product {
        group_size,
        ..*product
    }
}

/// Whether a kernel is the one asked for, or multiplies the types asked for.
pub(crate) fn answers_to(kernel: &str, asked: &str) -> bool {
    kernel == asked || kernel.split('_').any(|part| part == asked)
}
