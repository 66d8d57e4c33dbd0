//! Float activations to INT8 on a card, with RMSNorm or SwiGLU before them in the same kernel.

use std::sync::Arc;

use dualgrain_device::ActivationScale;

use super::quantize_rows::{HeldRows, quantize_rows_sources};
use super::quantized_input::{Before, Input};
use crate::compiler::{Jit, Source};
use crate::cu;
use crate::driver::{Buffer, Gpu, Kernel, Launch, launch_with};
use crate::error::CudaError;
use crate::fit::{at_least, exactly};
use crate::gemm::QuantizedTokens;

/// Threads of a CTA, at most; one CTA takes a token.
const THREADS: usize = 512;
/// Half as many where rows are short enough for this many CTAs a multiprocessor: then some load while others compute.
const MANY_CTAS: usize = 4;
/// Shared memory that the system takes of each CTA, and the kernel beside the row.
const CTA_SHARED_BYTES: usize = 1_024 + 512;

/// CTAs that share a multiprocessor's registers at least: two loads on their way at a time, with a second input, want more of them.
fn min_ctas(before: Before) -> i64 {
    match before {
        Before::SwiGlu | Before::AddRmsNorm => 2,
        Before::Nothing | Before::RmsNorm => 4,
    }
}

/// The text and macros of `quantize_per_token`.
pub fn quantize_source(before: Before, input: Input) -> Source {
    let (of_rows, added) = match before {
        Before::AddRmsNorm => (Input::F32, input),
        Before::Nothing | Before::RmsNorm | Before::SwiGlu => (input, Input::F32),
    };
    Source {
        name: "quantize_per_token",
        text: cu::QUANTIZE_PER_TOKEN,
        headers: cu::MODEL_HEADERS,
        macros: vec![
            ("BEFORE", before.code()),
            ("IN", of_rows.code()),
            ("ADDED", added.code()),
            ("THREADS", THREADS as i64),
            // Registers for this many CTAs of `THREADS`: SwiGLU's loads and polynomials want 64, the others do with 32.
            ("MIN_CTAS", min_ctas(before)),
        ],
    }
}

/// Arguments of the kernel, as `QuantizeArgs` in cu/rows/quantize_per_token.cu.
#[repr(C)]
struct QuantizeArgs {
    x: u64,
    weight: u64,
    codes: u64,
    scales: u64,
    sums: u64,
    eps: f32,
    static_scale: f32,
    m: i32,
    k: i32,
    x_row: i32,
    row_bytes: i32,
    y: u64,
}

/// The kernel, made ready.
pub struct Quantize {
    gpu: Gpu,
    kernel: Arc<Kernel>,
    /// For rows that a block holds in registers, as [`HeldRows`] numbers them.
    held: Vec<Arc<Kernel>>,
    before: Before,
    input: Input,
}

impl Quantize {
    /// Compiles it for a card.
    ///
    /// # Errors
    /// It does not compile or load.
    pub fn new(jit: &Jit, gpu: &Gpu, before: Before, input: Input) -> Result<Self, CudaError> {
        let held = quantize_rows_sources(before, input).into_iter();
        Ok(Self {
            gpu: gpu.clone(),
            kernel: jit.kernel(&quantize_source(before, input))?,
            held: held
                .map(|(source, _)| jit.kernel(&source))
                .collect::<Result<_, _>>()?,
            before,
            input,
        })
    }

    /// Puts the quantization of `x` `[M, K]` (`[M, 2 K]` before SwiGLU), in the input's type, on the card's stream; M and
    /// K are those of `tokens`. RMSNorm wants its f32 weight `[K]` and its eps; the weight is read before launches in front of this one
    /// are done, so none of them may write it.
    ///
    /// # Errors
    /// Buffers that do not fit, a row too long for shared memory, or a launch the driver refuses.
    pub fn launch(
        &self,
        x: &Buffer,
        norm: Option<(&Buffer, f32)>,
        scale: ActivationScale,
        tokens: &mut QuantizedTokens,
    ) -> Result<(), CudaError> {
        self.launch_all(x, None, norm, scale, tokens)
    }

    /// As [`Self::launch`] for [`Before::AddRmsNorm`]: `y` `[M, K]` is added to `x` first.
    ///
    /// # Errors
    /// As [`Self::launch`].
    pub fn launch_added(
        &self,
        (x, y): (&Buffer, &Buffer),
        norm: (&Buffer, f32),
        scale: ActivationScale,
        tokens: &mut QuantizedTokens,
    ) -> Result<(), CudaError> {
        self.launch_all(x, Some(y), Some(norm), scale, tokens)
    }

    fn launch_all(
        &self,
        x: &Buffer,
        y: Option<&Buffer>,
        norm: Option<(&Buffer, f32)>,
        scale: ActivationScale,
        tokens: &mut QuantizedTokens,
    ) -> Result<(), CudaError> {
        let (m, k) = tokens.shape();
        let x_row = self.before.input_columns(k);
        at_least("input", m * x_row * self.row_input().size_bytes(), x)?;
        self.check_added(y, (m, k))?;
        let norm_bytes = norm.map_or(0, |(weight, _)| weight.len_bytes());
        let expected = if self.before.norms() { 4 * k } else { 0 };
        exactly("weight of RMSNorm", expected, norm_bytes)?;
        let (codes, sums, scales) = tokens.addresses();
        let mut args = QuantizeArgs {
            x: x.address(),
            weight: norm.map_or(0, |(weight, _)| weight.address()),
            codes,
            scales,
            sums,
            eps: norm.map_or(0.0, |(_, eps)| eps),
            static_scale: match scale {
                ActivationScale::PerToken => 0.0,
                ActivationScale::Static(scale) => scale,
            },
            m: m as i32,
            k: k as i32,
            x_row: x_row as i32,
            row_bytes: tokens.row_bytes() as i32,
            y: y.map_or(0, Buffer::address),
        };
        let (kernel, grid) = self.launch_for((m, k), tokens.row_bytes())?;
        // SAFETY: the kernel's one parameter; all buffers are as long as its sizes say (checked, or by construction of
        // the tokens), and the driver frees none of them before the stream has passed the launch.
        unsafe { launch_with(kernel, &grid, &mut args) }
    }

    /// The kernel for rows of `k` elements, and its blocks.
    fn launch_for(&self, (m, k): (usize, usize), row_bytes: usize) -> Result<(&Kernel, Launch), CudaError> {
        let rows = |threads| Launch::rows(m, 1, threads as u32, self.gpu.info().overlaps_launches());
        let held = HeldRows::new(self.before, (m, k), row_bytes, self.gpu.info().num_sms);
        if let Some((held, kernel)) = held.and_then(|held| Some((held, self.held.get(held.variant)?))) {
            let grid = Launch {
                shared_bytes: held.shared_bytes,
                ..rows(held.threads)
            };
            return Ok((kernel, grid));
        }
        let shared_bytes = self.held_bytes() * k.next_multiple_of(8);
        if shared_bytes + CTA_SHARED_BYTES > self.gpu.info().shared_bytes {
            return Err(CudaError::TooLarge {
                what: "row to quantize",
                got: k,
            });
        }
        self.kernel.allow_shared(shared_bytes)?;
        let threads = self.threads(m, shared_bytes);
        Ok((
            &self.kernel,
            Launch {
                shared_bytes,
                ..rows(threads)
            },
        ))
    }

    fn check_added(&self, y: Option<&Buffer>, (m, k): (usize, usize)) -> Result<(), CudaError> {
        let added_bytes = self.input.size_bytes() * m * k;
        if (self.before == Before::AddRmsNorm) != y.is_some() {
            return Err(CudaError::Length {
                what: "rows to add",
                expected: if y.is_some() { 0 } else { added_bytes },
                got: y.map_or(0, Buffer::len_bytes),
            });
        }
        y.map_or(Ok(()), |y| at_least("rows to add", added_bytes, y))
    }

    /// Type of the rows that are changed or read; what is added to them has the named one.
    fn row_input(&self) -> Input {
        match self.before {
            Before::AddRmsNorm => Input::F32,
            Before::Nothing | Before::RmsNorm | Before::SwiGlu => self.input,
        }
    }

    /// Bytes of an element in shared memory: as it came, or f32 behind SwiGLU.
    fn held_bytes(&self) -> usize {
        match self.before {
            Before::SwiGlu => 4,
            Before::Nothing | Before::RmsNorm | Before::AddRmsNorm => self.row_input().size_bytes(),
        }
    }

    fn threads(&self, m: usize, shared_bytes: usize) -> usize {
        let info = self.gpu.info();
        let resident = info.shared_bytes / (shared_bytes + CTA_SHARED_BYTES);
        match m > info.num_sms && resident >= MANY_CTAS {
            true => THREADS / 2,
            false => THREADS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_size_of_the_kernels_structure() {
        assert_eq!(size_of::<QuantizeArgs>(), 72);
    }
}
