//! How long a configuration would take, whoever says it.

use crate::driver::GpuInfo;
use crate::gemm::kernels::GemmConfig;
use crate::gemm::problem::GemmProblem;

/// Seconds a configuration would take: analytic today, learned from measurements later.
pub trait Cost {
    /// Estimated seconds.
    fn time_s(&self, problem: &GemmProblem, config: &GemmConfig, gpu: &GpuInfo) -> f64;
}
