//! Gram matrices on a card.

use std::sync::Arc;

use dualgrain_device::Gram;

use crate::compiler::{Jit, Source};
use crate::cu;
use crate::driver::{Buffer, Gpu, Kernel, Launch, launch_with};
use crate::error::CudaError;
use crate::fit::at_least;

/// Rows and columns of the matrix that a block adds to, as in cu/statistics/gram.cu.
const TILE: (usize, usize) = (128, 64);
const THREADS: u32 = 256;

pub(super) fn source() -> Source {
    Source {
        name: "gram",
        text: cu::GRAM,
        headers: cu::MODEL_HEADERS,
        macros: Vec::new(),
    }
}

/// A Gram matrix f32 `[k,k]` in the making; only its lower triangle is added to.
pub struct GramMatrix {
    pub(super) values: Buffer,
    k: usize,
    num_tokens: usize,
}

impl GramMatrix {
    /// The zero matrix `[k,k]`.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn new(gpu: &Gpu, k: usize) -> Result<Self, CudaError> {
        Ok(Self {
            values: gpu.filled(4 * k * k, 0)?,
            k,
            num_tokens: 0,
        })
    }

    /// A copy of the host's matrix, to compute output errors with.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn of_host(gpu: &Gpu, gram: &Gram) -> Result<Self, CudaError> {
        Ok(Self {
            values: gpu.upload(gram.values())?,
            k: gram.k(),
            num_tokens: gram.num_tokens(),
        })
    }

    /// Side length.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Copies it to the host.
    ///
    /// # Errors
    /// A copy, or an earlier kernel, that failed.
    pub fn to_host(&self) -> Result<Gram, CudaError> {
        let mut gram = Gram::new(self.k);
        self.values.read(0, gram.accumulate_parts(self.num_tokens))?;
        Ok(gram)
    }
}

/// Arguments of the kernel, as `GramArgs` in cu/statistics/gram.cu.
#[repr(C)]
struct GramArgs {
    gram: u64,
    x: u64,
    tokens: u32,
    k: u32,
}

/// `gram += x^T x`, made ready.
pub struct GramUpdate {
    gpu: Gpu,
    kernel: Arc<Kernel>,
}

impl GramUpdate {
    /// Compiles it for a card.
    ///
    /// # Errors
    /// It does not compile or load.
    pub fn new(jit: &Jit, gpu: &Gpu) -> Result<Self, CudaError> {
        Ok(Self {
            gpu: gpu.clone(),
            kernel: jit.kernel(&source())?,
        })
    }

    /// Puts `gram += x^T x` on the card's stream, for `x` f32 `[tokens, k]`; tokens in order, 256 accumulated at a time.
    ///
    /// # Errors
    /// A buffer that does not fit, 2^31 tokens or more, or a launch the driver refuses.
    pub fn launch(&self, gram: &mut GramMatrix, x: &Buffer, tokens: usize) -> Result<(), CudaError> {
        at_least("tokens of a Gram matrix", 4 * tokens * gram.k, x)?;
        if tokens >= 1 << 31 {
            return Err(CudaError::TooLarge {
                what: "number of tokens",
                got: tokens,
            });
        }
        gram.num_tokens += tokens;
        if tokens == 0 {
            return Ok(());
        }
        let mut args = GramArgs {
            gram: gram.values.address(),
            x: x.address(),
            tokens: tokens as u32,
            k: gram.k as u32,
        };
        let grid = Launch {
            grid: [gram.k.div_ceil(TILE.1) as u32, gram.k.div_ceil(TILE.0) as u32, 1],
            threads: THREADS,
            shared_bytes: 0,
            cluster: 1,
            programmatic: self.gpu.info().overlaps_launches(),
        };
        // SAFETY: the kernel's one parameter; both buffers are as long as their sizes say (checked, or by construction), and the
        // driver frees neither before the stream has passed the launch.
        unsafe { launch_with(&self.kernel, &grid, &mut args) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_size_of_the_kernels_structure() {
        assert_eq!(size_of::<GramArgs>(), 24);
    }
}
