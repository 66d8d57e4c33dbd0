//! A model as a cost function of the GPU kernels.

use dualgrain_cuda::{Cost, GemmConfig, GemmProblem, GpuInfo, Output};
use dualgrain_format::GemmShape;

use crate::machine::Machine;
use crate::predict::{KernelCall, Model, Objective, Prediction};
use crate::product::Product;

/// A model as a cost function of the kernels: seconds, joules or both. What the model cannot say is never chosen.
#[derive(Debug, Clone, Copy)]
pub struct PredictedCost<'a> {
    /// The model.
    pub model: &'a Model,
    /// What is to be least.
    pub by: Objective,
}

impl PredictedCost<'_> {
    /// What the model says of a configuration.
    pub fn prediction(&self, problem: &GemmProblem, config: &GemmConfig) -> Option<Prediction> {
        let GemmShape { m, n, k } = problem.shape;
        let product = Product {
            group_size: problem.group,
            output: output_name(problem.output),
            ..Product::new(m, n, k)
        };
        // The one allocation of choosing: a configuration's name.
        let name = config.to_string();
        let call = KernelCall {
            kernel: config.variant.kernel(),
            config: &name,
            product,
        };
        self.model.predict(&call).ok()
    }
}

impl Cost for PredictedCost<'_> {
    fn time_s(&self, problem: &GemmProblem, config: &GemmConfig, _: &GpuInfo) -> f64 {
        let cost = self
            .prediction(problem, config)
            .and_then(|prediction| prediction.cost(self.by));
        cost.unwrap_or(f64::INFINITY)
    }
}

/// As rows name it.
pub fn output_name(output: Output) -> &'static str {
    match output {
        Output::F32 => "f32",
        Output::F16 => "f16",
        Output::Bf16 => "bf16",
        Output::Sums => "i32",
    }
}

/// The card a machine is.
pub fn device(machine: &Machine) -> GpuInfo {
    GpuInfo {
        index: 0,
        name: machine.name.clone(),
        capability: ((machine.capability / 10) as i32, (machine.capability % 10) as i32),
        num_sms: machine.num_units,
        clock_hz: machine.clock_hz,
        l2_bytes: machine.last_level_cache_bytes,
        shared_bytes: machine.shared_bytes,
        memory_bytes: machine.memory_bytes,
        // Reading reaches about nine tenths of it.
        memory_bytes_per_s: machine.read_bytes_per_s / 0.9,
    }
}
