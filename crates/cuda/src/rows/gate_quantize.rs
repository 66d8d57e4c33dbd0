//! The gated activation, the transform behind it and its quantization in one kernel, a cluster of CTAs for each token.

use std::sync::Arc;

use dualgrain_device::naive::hadamard_scale;
use dualgrain_device::{Activation, ActivationScale};

use super::pointwise::activation_code;
use super::quantized_input::Input;
use crate::compiler::{Jit, Source};
use crate::cu;
use crate::driver::{Buffer, Gpu, Kernel, Launch, launch_with};
use crate::error::CudaError;
use crate::fit::at_least;
use crate::gemm::QuantizedTokens;

/// CTAs that take a row together, as in cu/rows/gate_quantize.cu.
const CLUSTER: usize = 8;
/// Neighbours of a thread.
const EACH: usize = 4;
/// How many times a thread holds so many. What a thread does once would be shared by more elements in four rounds, but they need
/// registers of twice as many threads: 4 % slower at 2,048 rows.
const ROUNDS: usize = 2;
/// Threads of a CTA, at most.
const MOST_THREADS: usize = 512;
/// The longest run that is transformed: the columns that a warp holds in a round.
const MOST_BLOCK: usize = WARP * EACH;
/// Threads of a warp: shares of a row are whole warps of elements.
const WARP: usize = 32;

/// The text and macros of `gate_quantize` for a gate and up of a type, f32 or bf16.
pub fn gate_quantize_source(f: Activation, input: Input) -> Source {
    Source {
        name: "gate_quantize",
        text: cu::GATE_QUANTIZE,
        headers: cu::MODEL_HEADERS,
        macros: vec![
            ("FUNCTION", activation_code(f)),
            ("IN", input.code()),
            ("ROUNDS", ROUNDS as i64),
        ],
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
    share: i32,
    block: i32,
    factor: f32,
}

/// The kernel, made ready; Hopper and later have clusters.
pub struct GateQuantize {
    kernel: Arc<Kernel>,
    input: Input,
}

impl GateQuantize {
    /// Compiles it for a card and a type of input, f32 or bf16; `None` on a card without clusters.
    ///
    /// # Errors
    /// It does not compile or load.
    pub fn new(jit: &Jit, gpu: &Gpu, f: Activation, input: Input) -> Result<Option<Self>, CudaError> {
        if gpu.info().capability < (9, 0) {
            return Ok(None);
        }
        let kernel = jit.kernel(&gate_quantize_source(f, input))?;
        Ok(Some(Self { kernel, input }))
    }

    /// Whether it takes rows of so many codes.
    pub fn takes(&self, k: usize) -> bool {
        k.is_multiple_of(EACH) && share_threads(k) <= MOST_THREADS
    }

    /// Whether it transforms runs of `block` columns.
    pub fn transforms(&self, block: Option<usize>) -> bool {
        block.is_none_or(|block| block <= MOST_BLOCK)
    }

    /// `tokens = f(x[:, ..K]) * x[:, K..]` of `x` `[M, 2 K]`, of the input's type, transformed in blocks of `block` columns where one is named, quantized; M
    /// and K are those of `tokens`.
    ///
    /// # Errors
    /// A buffer that is too short, rows that [`Self::takes`] refuses, a block that [`Self::transforms`] refuses, or a launch the
    /// driver refuses.
    pub fn launch(
        &self,
        x: &Buffer,
        block: Option<usize>,
        scale: ActivationScale,
        tokens: &mut QuantizedTokens,
    ) -> Result<(), CudaError> {
        let (m, k) = tokens.shape();
        at_least("gate and up", 2 * self.input.size_bytes() * m * k, x)?;
        if !self.takes(k) || !self.transforms(block) {
            return Err(CudaError::TooLarge {
                what: "row to gate",
                got: k,
            });
        }
        let threads = share_threads(k);
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
            share: (threads * ROUNDS * EACH) as i32,
            block: block.unwrap_or(0) as i32,
            factor: block.map_or(1.0, hadamard_scale),
        };
        let grid = Launch {
            cluster: CLUSTER as u32,
            ..Launch::rows(m * CLUSTER, 1, threads as u32, true)
        };
        // SAFETY: the kernel's one parameter; the input is as long as its sizes say (checked), the tokens by construction.
        unsafe { launch_with(&self.kernel, &grid, &mut args) }
    }
}

/// Threads of each of a cluster's CTAs for rows of `k` codes and the zeros behind them.
fn share_threads(k: usize) -> usize {
    k.div_ceil(CLUSTER * ROUNDS * EACH).next_multiple_of(WARP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_size_of_the_kernels_structure() {
        assert_eq!(size_of::<GateArgs>(), 56);
    }
}
