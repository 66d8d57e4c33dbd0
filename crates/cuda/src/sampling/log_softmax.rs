//! The logarithm of the softmax of rows, in place.

use std::sync::Arc;

use crate::compiler::{Jit, Source};
use crate::cu;
use crate::driver::{Buffer, Gpu, Kernel, Launch, launch_with};
use crate::error::CudaError;
use crate::fit::at_least;

/// Threads of a block, which takes a row; as in cu/sampling/cluster.cuh.
const THREADS: u32 = 512;

/// The text of `log_softmax`.
pub fn log_softmax_source() -> Source {
    Source {
        name: "log_softmax",
        text: cu::LOG_SOFTMAX,
        headers: cu::SAMPLING_HEADERS,
        macros: Vec::new(),
    }
}

/// Arguments of the kernel, as `LogSoftmaxArgs` in cu/sampling/log_softmax.cu.
#[repr(C)]
struct LogSoftmaxArgs {
    x: u64,
    columns: u64,
}

/// The kernel, made ready.
pub struct LogSoftmax {
    gpu: Gpu,
    kernel: Arc<Kernel>,
}

impl LogSoftmax {
    /// Compiles it for a card.
    ///
    /// # Errors
    /// It does not compile or load.
    pub fn new(jit: &Jit, gpu: &Gpu) -> Result<Self, CudaError> {
        Ok(Self {
            gpu: gpu.clone(),
            kernel: jit.kernel(&log_softmax_source())?,
        })
    }

    /// Puts `x = x - log(sum(exp(x)))` per row of `x`, f32 `[rows, columns]`, on the card's stream. A row that has no such
    /// logarithm (NaN, +inf, nothing but -inf) becomes NaN, with whatever sign and payload the card gives.
    ///
    /// # Errors
    /// A buffer that does not fit, rows of 2^31 columns or more, or a launch the driver refuses.
    pub fn launch(&self, x: &Buffer, rows: usize, columns: usize) -> Result<(), CudaError> {
        at_least("rows of a softmax", 4 * rows * columns, x)?;
        if columns >= 1 << 31 {
            return Err(CudaError::TooLarge {
                what: "row of a softmax",
                got: columns,
            });
        }
        let mut args = LogSoftmaxArgs {
            x: x.address(),
            columns: columns as u64,
        };
        let grid = Launch {
            grid: [rows as u32, 1, 1],
            threads: THREADS,
            shared_bytes: 0,
            cluster: 1,
            programmatic: self.gpu.info().overlaps_launches(),
        };
        // SAFETY: the kernel's one parameter; the buffer is as long as its sizes say (checked), and the driver does not free it
        // before the stream has passed the launch.
        unsafe { launch_with(&self.kernel, &grid, &mut args) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_size_of_the_kernels_structure() {
        assert_eq!(size_of::<LogSoftmaxArgs>(), 16);
    }
}
