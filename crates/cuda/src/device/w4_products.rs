//! W4A8 products of any number of tokens: the configuration for each is chosen once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use dualgrain_format::{GemmShape, GroupSize};

use crate::compiler::Jit;
use crate::driver::{Buffer, Gpu};
use crate::error::CudaError;
use crate::gemm::{Gemm, GemmProblem, Output, PackedLinear, QuantizedTokens, select};

/// Bytes of the workspace that all products share: what the largest cut of a product into parts has needed.
const PRODUCTS_BYTES: usize = 64 << 20;

/// The products made ready so far.
pub(super) struct W4Products {
    gpu: Gpu,
    workspace: Arc<Buffer>,
    ready: Mutex<HashMap<(GemmShape, GroupSize), Arc<Gemm>>>,
}

impl W4Products {
    pub(super) fn new(gpu: &Gpu) -> Result<Self, CudaError> {
        Ok(Self {
            gpu: gpu.clone(),
            workspace: Arc::new(gpu.filled(PRODUCTS_BYTES, 0)?),
            ready: Mutex::default(),
        })
    }

    /// `out[M,N] = tokens[M,K] * weights[N,K]^T`, f32.
    pub(super) fn launch(
        &self,
        jit: &Jit,
        out: &Buffer,
        tokens: &QuantizedTokens,
        weights: &PackedLinear,
    ) -> Result<(), CudaError> {
        let (m, (n, k)) = (tokens.shape().0, weights.shape());
        if m == 0 {
            return Ok(());
        }
        let gemm = self.gemm(jit, GemmShape { m, n, k }, weights.group())?;
        gemm.launch(weights, tokens, out)
    }

    fn gemm(&self, jit: &Jit, shape: GemmShape, group: GroupSize) -> Result<Arc<Gemm>, CudaError> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gemm) = ready.get(&(shape, group)) {
            return Ok(Arc::clone(gemm));
        }
        let gemm = Arc::new(self.make(jit, shape, group)?);
        ready.insert((shape, group), Arc::clone(&gemm));
        Ok(gemm)
    }

    fn make(&self, jit: &Jit, shape: GemmShape, group: GroupSize) -> Result<Gemm, CudaError> {
        let problem = GemmProblem {
            shape,
            group,
            output: Output::F32,
        };
        let info = self.gpu.info();
        let config = select(&problem, info).ok_or_else(|| CudaError::NoKernel {
            what: format!("{shape} with group size {group}"),
            capability: format!("{}.{}", info.capability.0, info.capability.1),
        })?;
        match config.geometry(&problem, info).workspace_bytes <= PRODUCTS_BYTES {
            true => Gemm::with_workspace(jit, &self.gpu, problem, config, &self.workspace),
            false => Gemm::new(jit, &self.gpu, problem, config),
        }
    }
}
