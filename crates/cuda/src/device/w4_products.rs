//! W4A8 products of any number of tokens: the configuration for each is chosen once.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dualgrain_format::{GemmShape, GroupSize};

use crate::compiler::Jit;
use crate::driver::{Buffer, Gpu};
use crate::error::CudaError;
use crate::gemm::{Gemm, GemmConfig, GemmProblem, Output, PackedLinear, QuantizedTokens, Variant, select};

/// N and K of a product, its groups, and what it writes.
pub(super) type LinearShape = ((usize, usize), GroupSize, Output);

/// Of more tokens than these only every so many are asked for when kernels are made ready: their configurations seldom change.
const EACH_TOKENS: usize = 256;
const STRIDE_TOKENS: usize = 16;

/// Bytes of the workspace that all products share: what the largest cut of a product into parts has needed.
const PRODUCTS_BYTES: usize = 64 << 20;

/// The products made ready so far.
pub(super) struct W4Products {
    gpu: Gpu,
    workspace: Arc<Buffer>,
    ready: Mutex<HashMap<(GemmShape, GroupSize, Output), Arc<Gemm>>>,
}

impl W4Products {
    pub(super) fn new(gpu: &Gpu) -> Result<Self, CudaError> {
        Ok(Self {
            gpu: gpu.clone(),
            workspace: Arc::new(gpu.filled(PRODUCTS_BYTES, 0)?),
            ready: Mutex::default(),
        })
    }

    /// `out[M,N] = tokens[M,K] * weights[N,K]^T`, in the type of `output`.
    pub(super) fn launch(
        &self,
        jit: &Jit,
        (out, output): (&Buffer, Output),
        tokens: &QuantizedTokens,
        weights: &PackedLinear,
    ) -> Result<(), CudaError> {
        let (m, (n, k)) = (tokens.shape().0, weights.shape());
        if m == 0 {
            return Ok(());
        }
        let gemm = self.gemm(jit, problem(GemmShape { m, n, k }, weights.group(), output))?;
        gemm.launch(weights, tokens, out)
    }

    /// Loads the kernels of all products of `shapes` with up to `max_tokens` tokens, compiled where they are not in the cache.
    pub(super) fn prepare(
        &self,
        jit: &Jit,
        shapes: &HashSet<LinearShape>,
        max_tokens: usize,
    ) -> Result<(), CudaError> {
        let many = (EACH_TOKENS..=max_tokens).step_by(STRIDE_TOKENS);
        let tokens = (1..=max_tokens.min(EACH_TOKENS)).chain(many).chain([max_tokens]);
        let mut wanted: HashSet<(Variant, GroupSize, Output)> = HashSet::new();
        for m in tokens {
            for &((n, k), group, output) in shapes {
                let config = self.config(&problem(GemmShape { m, n, k }, group, output))?;
                wanted.insert((config.variant, group, output));
            }
        }
        let wanted: Vec<_> = wanted.into_iter().collect();
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
        let work = || {
            while let Some(&(variant, group, output)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = jit.kernel(&variant.source(group, output)) {
                    *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads.min(wanted.len()) {
                scope.spawn(work);
            }
        });
        failed
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .map_or(Ok(()), Err)
    }

    fn gemm(&self, jit: &Jit, problem: GemmProblem) -> Result<Arc<Gemm>, CudaError> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (problem.shape, problem.group, problem.output);
        if let Some(gemm) = ready.get(&key) {
            return Ok(Arc::clone(gemm));
        }
        let gemm = Arc::new(self.make(jit, problem)?);
        ready.insert(key, Arc::clone(&gemm));
        Ok(gemm)
    }

    fn make(&self, jit: &Jit, problem: GemmProblem) -> Result<Gemm, CudaError> {
        let config = self.config(&problem)?;
        match config.geometry(&problem, self.gpu.info()).workspace_bytes <= PRODUCTS_BYTES {
            true => Gemm::with_workspace(jit, &self.gpu, problem, config, &self.workspace),
            false => Gemm::new(jit, &self.gpu, problem, config),
        }
    }

    fn config(&self, problem: &GemmProblem) -> Result<GemmConfig, CudaError> {
        let info = self.gpu.info();
        select(problem, info).ok_or_else(|| CudaError::NoKernel {
            what: format!("{} with group size {}", problem.shape, problem.group),
            capability: format!("{}.{}", info.capability.0, info.capability.1),
        })
    }
}

fn problem(shape: GemmShape, group: GroupSize, output: Output) -> GemmProblem {
    GemmProblem { shape, group, output }
}
