//! A product made ready: its kernel compiled, its geometry laid out, launched as often as wanted.

use std::ffi::c_void;
use std::sync::Arc;

use bytemuck::Zeroable;
use dualgrain_format::GemmShape;

use super::kernels::{GemmConfig, Geometry, Variant};
use super::operands::{PackedLinear, QuantizedTokens, check_group};
use super::problem::GemmProblem;
use super::selection::{Cost, choose};
use crate::compiler::Jit;
use crate::driver::{Buffer, Gpu, Kernel, byte_matrix_map, launch};
use crate::error::CudaError;
use crate::fit::{at_least, count, exactly};

/// Arguments of every product, as `GemmArgs` in cu/w4a8.cuh.
#[repr(C)]
#[derive(Clone, Copy, Zeroable)]
struct GemmArgs {
    weights: u64,
    codes: u64,
    sums: u64,
    scales: u64,
    s1: u64,
    bias: u64,
    d: u64,
    workspace: u64,
    m: i32,
    n: i32,
    k: i32,
    row_bytes: i32,
    d_row: i32,
    k_blocks: i32,
    cut_tiles: i32,
    raster_m: i32,
}

/// A product made ready: compiled, laid out, with room for the sums of cut tiles. Launching allocates nothing, so
/// launches can be recorded.
pub struct Gemm {
    problem: GemmProblem,
    config: GemmConfig,
    geometry: Geometry,
    kernel: Arc<Kernel>,
    /// Zero between launches: the kernels leave it so.
    workspace: Arc<Buffer>,
}

impl Gemm {
    /// With the configuration the cost function likes best.
    ///
    /// # Errors
    /// No kernel for the product on this card, or it does not compile or fit.
    pub fn chosen(jit: &Jit, gpu: &Gpu, problem: GemmProblem, cost: &impl Cost) -> Result<Self, CudaError> {
        let (major, minor) = gpu.info().capability;
        let config = choose(&problem, gpu.info(), cost).ok_or_else(|| CudaError::NoKernel {
            what: format!("{} with group size {}", problem.shape, problem.group),
            capability: format!("{major}.{minor}"),
        })?;
        Self::new(jit, gpu, problem, config)
    }

    /// With a configuration of the caller's.
    ///
    /// # Errors
    /// It does not compile, or does not fit the card.
    pub fn new(jit: &Jit, gpu: &Gpu, problem: GemmProblem, config: GemmConfig) -> Result<Self, CudaError> {
        let geometry = config.geometry(&problem, gpu.info());
        let workspace = gpu.filled(geometry.workspace_bytes, 0)?;
        Self::with_workspace(jit, gpu, problem, config, &Arc::new(workspace))
    }

    /// As [`Gemm::new`], with a workspace of zeros that products on one stream share, as many bytes as
    /// [`GemmConfig::geometry`] says.
    ///
    /// # Errors
    /// As [`Gemm::new`]; a workspace that is too small.
    pub fn with_workspace(
        jit: &Jit,
        gpu: &Gpu,
        problem: GemmProblem,
        config: GemmConfig,
        workspace: &Arc<Buffer>,
    ) -> Result<Self, CudaError> {
        let GemmShape { m, n, k } = problem.shape;
        for (what, size) in [("M", m), ("N", n), ("K", k)] {
            count(what, size)?;
        }
        check_group(problem.group)?;
        let geometry = config.geometry(&problem, gpu.info());
        at_least("workspace of a product", geometry.workspace_bytes, workspace)?;
        let kernel = jit.kernel(&config.variant.source(problem.group, problem.output))?;
        kernel.allow_shared(geometry.launch.shared_bytes)?;
        Ok(Self {
            problem,
            config,
            geometry,
            kernel,
            workspace: Arc::clone(workspace),
        })
    }

    /// Whether a launch may begin while the one before it ends (the kernels wait where they must). On by default.
    pub fn set_overlap(&mut self, overlap: bool) {
        self.geometry.launch.programmatic &= overlap;
    }

    /// The product.
    pub fn problem(&self) -> &GemmProblem {
        &self.problem
    }

    /// The compiled kernel.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// The configuration.
    pub fn config(&self) -> GemmConfig {
        self.config
    }

    /// Blocks and work.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Puts the product on the card's stream: `d` `[M,N]`, elements as the problem says.
    ///
    /// # Errors
    /// Operands that do not fit the problem, or a launch the driver refuses.
    pub fn launch(
        &self,
        weights: &PackedLinear,
        tokens: &QuantizedTokens,
        d: &Buffer,
    ) -> Result<(), CudaError> {
        self.launch_at(weights, tokens, d, 0)
    }

    /// As [`Gemm::launch`], with D beginning at `offset_bytes` of a buffer (a multiple of an element).
    ///
    /// # Errors
    /// As [`Gemm::launch`].
    pub fn launch_at(
        &self,
        weights: &PackedLinear,
        tokens: &QuantizedTokens,
        d: &Buffer,
        offset_bytes: usize,
    ) -> Result<(), CudaError> {
        self.check(weights, tokens, d, offset_bytes)?;
        let mut args = self.args(weights, tokens, d, offset_bytes);
        let args: *mut c_void = (&raw mut args).cast();
        match self.config.variant {
            Variant::Gemm(gemm) | Variant::FloatScales(gemm) => {
                let box_rows = (gemm.tile_m / gemm.cluster) as u32;
                let mut map = byte_matrix_map(tokens.codes(), tokens.shape(), tokens.row_bytes(), box_rows)?;
                // SAFETY: the kernel's parameters; the buffers fit the problem (checked), and the driver frees none
                // of them before the stream has passed the launch.
                unsafe {
                    launch(
                        &self.kernel,
                        &self.geometry.launch,
                        &mut [(&raw mut map).cast(), args],
                    )
                }
            }
            // SAFETY: as above.
            Variant::Gemv(_) | Variant::Ampere(_) => unsafe {
                launch(&self.kernel, &self.geometry.launch, &mut [args])
            },
        }
    }

    fn check(
        &self,
        weights: &PackedLinear,
        tokens: &QuantizedTokens,
        d: &Buffer,
        offset_bytes: usize,
    ) -> Result<(), CudaError> {
        let GemmShape { m, n, k } = self.problem.shape;
        let (weights_n, weights_k) = weights.shape();
        exactly("N of the weights", n, weights_n)?;
        exactly("K of the weights", k, weights_k)?;
        if self.problem.group != weights.group() {
            return Err(CudaError::GroupSize {
                what: "group of the weights",
                expected: self.problem.group,
                got: weights.group(),
            });
        }
        let float_scales = matches!(self.config.variant, Variant::FloatScales(_));
        exactly(
            "float group scales of the weights",
            usize::from(float_scales),
            usize::from(weights.has_float_scales()),
        )?;
        let (tokens_m, tokens_k) = tokens.shape();
        exactly("M of the tokens", m, tokens_m)?;
        exactly("K of the tokens", k, tokens_k)?;
        let element = self.problem.output.size_bytes();
        exactly("offset of D inside an element", 0, offset_bytes % element)?;
        let end = offset_bytes.saturating_add(m * n * element);
        exactly("D", end.max(d.len_bytes()), d.len_bytes())
    }

    fn args(&self, weights: &PackedLinear, tokens: &QuantizedTokens, d: &Buffer, offset: usize) -> GemmArgs {
        let GemmShape { m, n, k } = self.problem.shape;
        let (codes, sums, scales) = tokens.addresses();
        GemmArgs {
            weights: weights.image().address(),
            codes,
            sums,
            scales,
            s1: weights.s1().address(),
            bias: weights.bias().map_or(0, Buffer::address),
            d: d.address() + offset as u64,
            workspace: self.workspace.address(),
            m: m as i32,
            n: n as i32,
            k: k as i32,
            row_bytes: tokens.row_bytes() as i32,
            d_row: n as i32,
            k_blocks: self.problem.k_blocks() as i32,
            cut_tiles: self.geometry.cut_tiles as i32,
            raster_m: self.geometry.raster_m as i32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_size_of_the_kernels_structure() {
        assert_eq!(size_of::<GemmArgs>(), 96);
    }
}
