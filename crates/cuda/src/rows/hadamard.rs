//! The Hadamard transform of runs of a row.

use std::sync::Arc;

use dualgrain_device::naive::hadamard_scale;

use crate::compiler::{Jit, Source};
use crate::cu;
use crate::driver::{Buffer, Gpu, Kernel, Launch, launch_with};
use crate::error::CudaError;
use crate::fit::at_least;

/// Threads of a CTA, and the columns that they take, as in cu/rows/hadamard.cu.
const THREADS: u32 = 128;
const COLUMNS: usize = 2_048;
/// The longest run: the columns of a warp.
const MOST_BLOCK: usize = 512;

/// The text of `hadamard`.
pub fn hadamard_source() -> Source {
    Source {
        name: "hadamard",
        text: cu::HADAMARD,
        headers: cu::MODEL_HEADERS,
        macros: Vec::new(),
    }
}

/// Arguments of the kernel, as `HadamardArgs` in cu/rows/hadamard.cu.
#[repr(C)]
struct HadamardArgs {
    x: u64,
    columns: i32,
    block: i32,
    scale: f32,
    padding: i32,
}

/// The kernel, made ready.
pub struct Hadamard {
    kernel: Arc<Kernel>,
    programmatic: bool,
}

impl Hadamard {
    /// Compiles it for a card.
    ///
    /// # Errors
    /// It does not compile or load.
    pub fn new(jit: &Jit, gpu: &Gpu) -> Result<Self, CudaError> {
        Ok(Self {
            kernel: jit.kernel(&hadamard_source())?,
            programmatic: gpu.info().overlaps_launches(),
        })
    }

    /// Transforms every run of `block` elements of `x` `[m, columns]`.
    ///
    /// # Errors
    /// A buffer that is too short, a run that is too long, or a launch the driver refuses.
    pub fn launch(&self, x: &Buffer, (m, columns): (usize, usize), block: usize) -> Result<(), CudaError> {
        at_least("rows to transform", 4 * m * columns, x)?;
        if block > MOST_BLOCK {
            return Err(CudaError::TooLarge {
                what: "run to transform",
                got: block,
            });
        }
        let mut args = HadamardArgs {
            x: x.address(),
            columns: columns as i32,
            block: block as i32,
            scale: hadamard_scale(block),
            padding: 0,
        };
        let grid = Launch::rows(m, columns.div_ceil(COLUMNS), THREADS, self.programmatic);
        // SAFETY: the kernel's one parameter; the buffer is as long as its sizes say (checked).
        unsafe { launch_with(&self.kernel, &grid, &mut args) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_size_of_the_kernels_structure() {
        assert_eq!(size_of::<HadamardArgs>(), 24);
    }
}
