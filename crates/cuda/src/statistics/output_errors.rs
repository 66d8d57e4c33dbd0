//! Squared errors of a layer's outputs over all calibration tokens.

use std::sync::Arc;

use super::gram::GramMatrix;
use crate::compiler::{Jit, Source};
use crate::cu;
use crate::driver::{Buffer, Gpu, Kernel, Launch, launch_with};
use crate::error::CudaError;
use crate::fit::exactly;

/// Rows of errors, and of the Gram matrix, that a block takes, as in cu/statistics/output_errors.cu.
const TILE: usize = 64;
const THREADS: u32 = 256;
/// Rows that a block adds up, a warp each.
const ROWS_ADDED: usize = THREADS as usize / 32;

/// The products, and the sums of them.
pub(super) fn sources() -> [Source; 2] {
    [0, 1].map(|part| Source {
        name: "output_errors",
        text: cu::OUTPUT_ERRORS,
        headers: cu::MODEL_HEADERS,
        macros: vec![("PART", part)],
    })
}

/// Squared errors f64 `[rows]`, with room for `capacity` of them.
pub struct OutputErrors {
    gpu: Gpu,
    values: Buffer,
    rows: usize,
    /// Errors of weights and inner products, f32 `[rows, k]` each; as large as they had to be so far.
    errors: Buffer,
    inner: Buffer,
}

impl OutputErrors {
    /// Room for the errors of `capacity` rows.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn new(gpu: &Gpu, capacity: usize) -> Result<Self, CudaError> {
        Ok(Self {
            gpu: gpu.clone(),
            values: gpu.filled(8 * capacity, 0)?,
            rows: 0,
            errors: gpu.uninitialized(0)?,
            inner: gpu.uninitialized(0)?,
        })
    }

    /// Rows of the last launch.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Copies the errors of the last launch to the host.
    ///
    /// # Errors
    /// `out` is not as long as they are; a copy, or an earlier kernel, that failed.
    pub fn read(&self, out: &mut [f64]) -> Result<(), CudaError> {
        exactly("output errors", 8 * self.rows, 8 * out.len())?;
        self.values.read(0, out)
    }

    /// Takes rows of errors from the host.
    fn refill(&mut self, errors: &[f32], rows: usize) -> Result<(), CudaError> {
        let (room, needed) = (self.values.len_bytes(), 8 * rows);
        if needed > room {
            return exactly("rows of output errors", room, needed);
        }
        if size_of_val(errors) > self.errors.len_bytes() {
            self.errors = self.gpu.uninitialized(size_of_val(errors))?;
            self.inner = self.gpu.uninitialized(size_of_val(errors))?;
        }
        self.errors.write(0, errors)?;
        self.rows = rows;
        Ok(())
    }
}

/// Arguments of the kernels, as `ErrorArgs` in cu/statistics/output_errors.cu.
#[repr(C)]
struct ErrorArgs {
    gram: u64,
    errors: u64,
    inner: u64,
    out: u64,
    rows: u64,
    k: u64,
}

/// `e * gram * e^T`, made ready.
pub struct ComputeOutputErrors {
    gpu: Gpu,
    products: Arc<Kernel>,
    sums: Arc<Kernel>,
}

impl ComputeOutputErrors {
    /// Compiles it for a card.
    ///
    /// # Errors
    /// It does not compile or load.
    pub fn new(jit: &Jit, gpu: &Gpu) -> Result<Self, CudaError> {
        let [products, sums] = sources();
        Ok(Self {
            gpu: gpu.clone(),
            products: jit.kernel(&products)?,
            sums: jit.kernel(&sums)?,
        })
    }

    /// Copies `errors` `[rows, k]` to the card and puts `out[r] = errors[r] * gram * errors[r]^T` on its stream; reads only the
    /// Gram matrix's lower triangle. Allocates where more is to be held than ever before.
    ///
    /// # Errors
    /// Errors that are no whole rows, more rows than `out` has room for (nothing changes then), a copy or a launch that fails.
    pub fn launch(&self, out: &mut OutputErrors, gram: &GramMatrix, errors: &[f32]) -> Result<(), CudaError> {
        let k = gram.k();
        let rows = errors.len().checked_div(k).unwrap_or(0);
        exactly("errors of weights", 4 * rows * k, size_of_val(errors))?;
        out.refill(errors, rows)?;
        if rows == 0 {
            return Ok(());
        }
        let mut args = ErrorArgs {
            gram: gram.values.address(),
            errors: out.errors.address(),
            inner: out.inner.address(),
            out: out.values.address(),
            rows: rows as u64,
            k: k as u64,
        };
        self.put(&self.products, [k.div_ceil(TILE), rows.div_ceil(TILE)], &mut args)?;
        self.put(&self.sums, [rows.div_ceil(ROWS_ADDED), 1], &mut args)
    }

    fn put(&self, kernel: &Kernel, grid: [usize; 2], args: &mut ErrorArgs) -> Result<(), CudaError> {
        let grid = Launch {
            grid: [grid[0] as u32, grid[1] as u32, 1],
            threads: THREADS,
            shared_bytes: 0,
            cluster: 1,
            programmatic: self.gpu.info().overlaps_launches(),
        };
        // SAFETY: the kernel's one parameter; all buffers are as long as their sizes say (checked, or by construction), and the
        // driver frees none of them before the stream has passed the launch.
        unsafe { launch_with(kernel, &grid, args) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_size_of_the_kernels_structure() {
        assert_eq!(size_of::<ErrorArgs>(), 48);
    }
}
