//! A fitted model of one machine. It predicts what a product costs in a configuration.

use std::path::Path;

use super::estimator::Estimate;
use super::fit_summary::FitSummary;
use super::kernel_call::KernelCall;
use super::kernel_config::{KernelConfig, answers_to, in_groups_of};
use super::model_parts::ModelParts;
use super::prediction::{Interval, Prediction};
use crate::error::{PerfError, measured_hint};
use crate::machine::Machine;
use crate::predict::file::{model_from_bytes, model_to_bytes};
use crate::predict::physics::Physics;
use crate::product::Product;

/// A fitted model of one machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    pub(crate) parts: ModelParts,
}

impl Model {
    /// Reads a model file.
    ///
    /// # Errors
    /// The file is missing, damaged, of another version, or no model.
    pub fn read(path: &Path) -> Result<Self, PerfError> {
        let bytes = std::fs::read(path).map_err(PerfError::io(path))?;
        model_from_bytes(&bytes, path).map(Self::from_parts)
    }

    /// Writes a model file. An earlier file is replaced only when all of the new one is written.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), PerfError> {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".part");
        std::fs::write(&aside, model_to_bytes(&self.parts)).map_err(PerfError::io(&aside))?;
        std::fs::rename(&aside, path).map_err(PerfError::io(path))
    }

    pub(crate) fn from_parts(parts: ModelParts) -> Self {
        Self { parts }
    }

    /// The machine whose measurements it was fitted to.
    pub fn machine(&self) -> &Machine {
        &self.parts.machine
    }

    /// How it was fitted, how good it is, which features matter.
    pub fn fit_summary(&self) -> &FitSummary {
        &self.parts.fit_summary
    }

    /// The kernels that it knows, in alphabetical order.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.parts
            .config_index
            .kernels
            .iter()
            .map(|kernel| kernel.name.as_str())
    }

    /// The configurations of a kernel, each in the group sizes and output types that were measured.
    pub fn configs(&self, kernel: &str) -> &[KernelConfig] {
        &self.parts.config_index.configs[self.parts.config_index.range_of(kernel)]
    }

    /// Predicts what a call costs. Allocates nothing.
    ///
    /// # Errors
    /// The machine or the kernel cannot run the product, or the kernel or configuration was not measured.
    pub fn predict(&self, call: &KernelCall<'_>) -> Result<Prediction, PerfError> {
        call.product.check()?;
        let (config, exact) = self.parts.config_index.find(call)?;
        self.parts.config_index.configs[config].check(&call.product)?;
        let physics = self.physics(config, &call.product);
        physics.roofline.check_fits(&call.product, &self.parts.machine)?;
        Ok(self.predict_at(config, exact, &call.product, &physics))
    }

    /// Predicts a product in the configuration of a name, for the kernel of a name or for all that multiply the types of a name
    /// and have the configuration, the fastest first.
    ///
    /// # Errors
    /// As [`Model::predict`], of the last kernel if none runs the product.
    pub fn in_config(
        &self,
        kernel: &str,
        config: &str,
        product: &Product<'_>,
    ) -> Result<Vec<(&KernelConfig, Prediction)>, PerfError> {
        product.check()?;
        let (mut predictions, mut refusal) = (Vec::new(), None);
        let kernels = self.answering_to(kernel)?;
        for kernel in &kernels {
            match self.in_config_of(kernel, config, product) {
                None => {}
                Some(Ok(prediction)) => predictions.push(prediction),
                Some(Err(error)) => refusal = Some(error),
            }
        }
        if predictions.is_empty() {
            return Err(refusal.unwrap_or_else(|| self.unknown_config((kernel, config), &kernels)));
        }
        predictions.sort_by(|left, right| left.1.time_s.value.total_cmp(&right.1.time_s.value));
        Ok(predictions)
    }

    /// `None` if the kernel has no configuration of that name.
    fn in_config_of(
        &self,
        kernel: &str,
        config: &str,
        product: &Product<'_>,
    ) -> Option<Result<(&KernelConfig, Prediction), PerfError>> {
        let facts = self.configs(kernel).iter().find(|facts| facts.config == config)?;
        let call = KernelCall {
            kernel,
            config,
            product: in_groups_of(facts, product),
        };
        let config_index = &self.parts.config_index;
        let found = config_index.find(&call).map(|(at, _)| &config_index.configs[at]);
        Some(found.and_then(|facts| Ok((facts, self.predict(&call)?))))
    }

    fn unknown_config(&self, (kernel, config): (&str, &str), kernels: &[&str]) -> PerfError {
        let configs = kernels.iter().flat_map(|kernel| self.configs(kernel));
        let mut known: Vec<&str> = configs.map(|facts| facts.config.as_str()).collect();
        known.sort_unstable();
        PerfError::UnknownConfig {
            kernel: kernel.to_owned(),
            got: format!("{config:?}"),
            hint: measured_hint(config, known.into_iter()),
        }
    }

    /// The kernels that a name stands for.
    pub(crate) fn answering_to(&self, asked: &str) -> Result<Vec<&str>, PerfError> {
        let kernels: Vec<&str> = self
            .kernels()
            .filter(|kernel| answers_to(kernel, asked))
            .collect();
        match kernels.is_empty() {
            true => Err(self.parts.config_index.unknown_kernel(asked)),
            false => Ok(kernels),
        }
    }

    /// The physics of a product in the configuration at a place.
    pub(crate) fn physics(&self, config: usize, product: &Product<'_>) -> Physics {
        let config_index = &self.parts.config_index;
        let operand_types = &config_index.operand_types[config_index.kernel_of[config]];
        Physics::new(
            &config_index.configs[config],
            operand_types,
            product,
            &self.parts.machine,
        )
    }

    /// Predicts a product in the configuration at a place; `exact` says whether it is the one that was asked for.
    pub(crate) fn predict_at(
        &self,
        config: usize,
        exact: bool,
        product: &Product<'_>,
        physics: &Physics,
    ) -> Prediction {
        let parts = &self.parts;
        let index = &parts.config_index;
        let estimate = parts
            .estimator
            .estimate(index, config, product, physics, &parts.machine);
        let (time_s, power_and_energy) = self.intervals(&estimate, index.kernel_of[config]);
        let energy_j = power_and_energy.map(|(_, energy_j)| energy_j);
        Prediction {
            time_s,
            power_w: power_and_energy.map(|(power_w, _)| power_w),
            energy_j,
            ops_per_s: time_s.rate(physics.roofline.ops),
            ops_per_j: energy_j.map(|energy_j| energy_j.rate(physics.roofline.ops)),
            extrapolated: !(exact && index.covers(config, product)),
        }
    }

    /// The intervals of time, and of power and energy where the model has them.
    fn intervals(&self, estimate: &Estimate, kernel: usize) -> (Interval, Option<(Interval, Interval)>) {
        let time_width = self.parts.time_width.of(&estimate.features, kernel);
        let time_s = Interval::around(estimate.log_time.exp(), time_width);
        let power = estimate.log_power.zip(self.parts.power_width.as_ref());
        let power_and_energy = power.map(|(log_power, (widths, energy_scales))| {
            let width = widths.of(&estimate.features, kernel);
            let energy = (estimate.log_time + log_power).exp();
            (
                Interval::around(log_power.exp(), width),
                Interval::around(energy, energy_scales[kernel] * time_width.hypot(width)),
            )
        });
        (time_s, power_and_energy)
    }
}
