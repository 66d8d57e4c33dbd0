//! A way to run a product: a kernel in one of its sizes, and which tiles are cut along K.

use std::fmt;

use super::geometry::{Geometry, Split};
use super::variant::Variant;
use crate::driver::GpuInfo;
use crate::gemm::problem::GemmProblem;

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

impl GemmConfig {
    /// CTAs and work of the product on a card.
    pub fn geometry(&self, problem: &GemmProblem, gpu: &GpuInfo) -> Geometry {
        match self.variant {
            Variant::Gemm(gemm) | Variant::FloatScales(gemm) => gemm.geometry(self.split, problem, gpu),
            Variant::Gemv(gemv) => gemv.geometry(problem, gpu),
            Variant::Ampere(ampere) => ampere.geometry(self.split, problem, gpu),
        }
    }

    /// Whether no simpler split means the same; two names for one thing would be timed twice.
    pub(crate) fn split_is_its_own(&self, problem: &GemmProblem, gpu: &GpuInfo) -> bool {
        let geometry = self.geometry(problem, gpu);
        match self.split {
            Split::Whole => true,
            Split::Tail => 0 < geometry.cut_tiles && geometry.cut_tiles < geometry.tiles,
            Split::All => problem.k_blocks() > 1 && geometry.cut_tiles > 0,
        }
    }
}
