//! The gated activation and its quantization in one kernel, a cluster of CTAs for each token.

use std::sync::Arc;

use dualgrain_device::{Activation, ActivationScale};

use super::pointwise::activation_code;
use crate::compiler::{Jit, Source};
use crate::cu;
use crate::driver::{Buffer, Gpu, Kernel, Launch, launch_with};
use crate::error::CudaError;
use crate::fit::at_least;
use crate::gemm::QuantizedTokens;

/// CTAs that take a row together, and their threads, as in cu/rows/gate_quantize.cu.
const CLUSTER: usize = 8;
const THREADS: usize = 256;
/// Elements that a thread holds at most.
const MOST_EACH: usize = 16;
/// Elements that a thread loads at a time.
const EACH: usize = 4;

/// The text and macros of `gate_quantize`.
pub fn gate_quantize_source(f: Activation) -> Source {
    Source {
        name: "gate_quantize",
        text: cu::GATE_QUANTIZE,
        headers: cu::MODEL_HEADERS,
        macros: vec![("FUNCTION", activation_code(f))],
    }
}

/// Arguments of the kernel, as `GateArgs` in cu/rows/gate_quantize.cu.
#[repr(C)]
struct GateArgs {
    x: u64,
    codes: u64,
    scales: u64,
    sums: u64,
    static_scale: f32,
    k: i32,
    row_bytes: i32,
    padding: i32,
}

/// The kernel, made ready; Hopper and later have clusters.
pub struct GateQuantize {
    kernel: Arc<Kernel>,
}

impl GateQuantize {
    /// Compiles it for a card; `None` on a card without clusters.
    ///
    /// # Errors
    /// It does not compile or load.
    pub fn new(jit: &Jit, gpu: &Gpu, f: Activation) -> Result<Option<Self>, CudaError> {
        if gpu.info().capability < (9, 0) {
            return Ok(None);
        }
        let kernel = jit.kernel(&gate_quantize_source(f))?;
        Ok(Some(Self { kernel }))
    }

    /// Whether it takes rows of so many codes.
    pub fn takes(&self, k: usize) -> bool {
        // A cluster's shares are rounded up to what a thread loads.
        k.is_multiple_of(EACH) && k + CLUSTER * EACH <= CLUSTER * THREADS * MOST_EACH
    }

    /// `tokens = f(x[:, ..K]) * x[:, K..]` of `x` f32 `[M, 2 K]`, quantized; M and K are those of `tokens`.
    ///
    /// # Errors
    /// A buffer that is too short, rows that [`Self::takes`] refuses, or a launch the driver refuses.
    pub fn launch(
        &self,
        x: &Buffer,
        scale: ActivationScale,
        tokens: &mut QuantizedTokens,
    ) -> Result<(), CudaError> {
        let (m, k) = tokens.shape();
        at_least("gate and up", 8 * m * k, x)?;
        if !self.takes(k) {
            return Err(CudaError::TooLarge {
                what: "row to gate",
                got: k,
            });
        }
        let (codes, sums, scales) = tokens.addresses();
        let mut args = GateArgs {
            x: x.address(),
            codes,
            scales,
            sums,
            static_scale: match scale {
                ActivationScale::PerToken => 0.0,
                ActivationScale::Static(scale) => scale,
            },
            k: k as i32,
            row_bytes: tokens.row_bytes() as i32,
            padding: 0,
        };
        let grid = Launch {
            cluster: CLUSTER as u32,
            ..Launch::rows(m * CLUSTER, 1, THREADS as u32, true)
        };
        // SAFETY: the kernel's one parameter; the input is as long as its sizes say (checked), the tokens by construction.
        unsafe { launch_with(&self.kernel, &grid, &mut args) }
    }
}
