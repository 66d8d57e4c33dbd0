//! The launch that hands chosen tokens to the next step.

use std::sync::Arc;

use super::sampler::{SampleRows, Sampler};
use crate::compiler::{Jit, Source};
use crate::cu;
use crate::driver::{Buffer, Gpu, Kernel, Launch, launch_with};
use crate::error::CudaError;
use crate::fit::at_least;

/// Threads of a block; each takes a row.
const THREADS: usize = 256;

/// The text of `last_tokens`.
pub fn last_tokens_source() -> Source {
    Source {
        name: "last_tokens",
        text: cu::LAST_TOKENS,
        headers: cu::SAMPLING_HEADERS,
        macros: Vec::new(),
    }
}

/// Arguments of the kernel, as `LastTokensArgs` in cu/sampling/last_tokens.cu.
#[repr(C)]
struct LastTokensArgs {
    last_tokens: u64,
    rows: u64,
    ids: u64,
    count: u32,
    unused: u32,
}

/// The kernel, made ready.
pub struct LastTokens {
    kernel: Arc<Kernel>,
    programmatic: bool,
}

impl LastTokens {
    /// Compiles it for a card.
    ///
    /// # Errors
    /// It does not compile or load.
    pub fn new(jit: &Jit, gpu: &Gpu) -> Result<Self, CudaError> {
        Ok(Self {
            kernel: jit.kernel(&last_tokens_source())?,
            programmatic: gpu.info().overlaps_launches(),
        })
    }

    /// Puts on the stream: `ids[i]` = the token that was chosen last for the sequence of `rows[i]`.
    ///
    /// # Errors
    /// A buffer that is too short, or a launch the driver refuses.
    pub fn launch(&self, ids: &Buffer, sampler: &Sampler, rows: &SampleRows) -> Result<(), CudaError> {
        at_least("token ids", 4 * rows.len(), ids)?;
        let mut args = LastTokensArgs {
            last_tokens: sampler.last_tokens.address(),
            rows: rows.buffer.address(),
            ids: ids.address(),
            count: rows.len() as u32,
            unused: 0,
        };
        let blocks = rows.len().div_ceil(THREADS);
        let grid = Launch::rows(blocks, 1, THREADS as u32, self.programmatic);
        // SAFETY: the kernel's one parameter; `ids` is long enough (checked), slots are those of the sampler.
        unsafe { launch_with(&self.kernel, &grid, &mut args) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_size_of_the_kernels_structure() {
        assert_eq!(size_of::<LastTokensArgs>(), 32);
    }
}
