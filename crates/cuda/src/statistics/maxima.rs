//! The largest magnitude of every column.

use std::ops::Range;
use std::sync::Arc;

use crate::compiler::{Jit, Source};
use crate::cu;
use crate::driver::{Buffer, Gpu, Kernel, Launch, launch_with};
use crate::error::CudaError;
use crate::fit::{at_least, exactly};

/// Columns and rows that a block takes, as in cu/statistics/abs_max.cu.
const THREADS: usize = 128;
const ROWS: usize = 64;
/// Blocks along the rows, at most; each takes several parts then.
const MOST_PARTS: usize = 65_535;

pub(super) fn source() -> Source {
    Source {
        name: "abs_max",
        text: cu::ABS_MAX,
        headers: cu::MODEL_HEADERS,
        macros: Vec::new(),
    }
}

/// Maxima f32 `[columns]`.
pub struct Maxima {
    values: Buffer,
}

impl Maxima {
    /// Maxima of `columns` columns, all zero.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn new(gpu: &Gpu, columns: usize) -> Result<Self, CudaError> {
        Ok(Self {
            values: gpu.filled(4 * columns, 0)?,
        })
    }

    /// How many columns.
    pub fn columns(&self) -> usize {
        self.values.len_bytes() / 4
    }

    /// The maxima so far.
    ///
    /// # Errors
    /// A copy, or an earlier kernel, that failed.
    pub fn read(&self) -> Result<Vec<f32>, CudaError> {
        let mut values = vec![0.0; self.columns()];
        self.values.read(0, &mut values)?;
        Ok(values)
    }
}

/// Arguments of the kernel, as `MaximaArgs` in cu/statistics/abs_max.cu.
#[repr(C)]
struct MaximaArgs {
    maxima: u64,
    x: u64,
    rows: u64,
    stride: u64,
    start: u64,
    columns: u64,
}

/// `maxima[j] = max(maxima[j], |x[:, j]|)`, made ready.
pub struct AbsMax {
    gpu: Gpu,
    kernel: Arc<Kernel>,
}

impl AbsMax {
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

    /// Puts `maxima[j] = max(maxima[j], max over rows of |x[:, columns.start + j]|)` on the card's stream, for `x` f32
    /// `[rows, stride]`; NaN counts for nothing.
    ///
    /// # Errors
    /// A buffer that does not fit, columns that are not those of the maxima or not inside a row, or a launch the driver refuses.
    pub fn launch(
        &self,
        x: &Buffer,
        (rows, stride): (usize, usize),
        columns: Range<usize>,
        maxima: &mut Maxima,
    ) -> Result<(), CudaError> {
        at_least("rows to measure", 4 * rows * stride, x)?;
        exactly("columns to measure", 4 * columns.len(), maxima.values.len_bytes())?;
        exactly("columns inside a row", columns.end.min(stride), columns.end)?;
        let mut args = MaximaArgs {
            maxima: maxima.values.address(),
            x: x.address(),
            rows: rows as u64,
            stride: stride as u64,
            start: columns.start as u64,
            columns: columns.len() as u64,
        };
        let (blocks, parts) = (
            columns.len().div_ceil(THREADS),
            rows.div_ceil(ROWS).min(MOST_PARTS),
        );
        let grid = Launch {
            grid: [blocks as u32, parts as u32, 1],
            threads: THREADS as u32,
            shared_bytes: 0,
            cluster: 1,
            programmatic: self.gpu.info().overlaps_launches(),
        };
        // SAFETY: the kernel's one parameter; both buffers are as long as their sizes say (checked), and the driver frees
        // neither before the stream has passed the launch.
        unsafe { launch_with(&self.kernel, &grid, &mut args) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_size_of_the_kernels_structure() {
        assert_eq!(size_of::<MaximaArgs>(), 48);
    }
}
