//! RMS norm and layer norm of rows, and of heads inside rows.

use std::sync::Arc;

use crate::compiler::{Jit, Source};
use crate::cu;
use crate::driver::{Buffer, Gpu, Kernel, Launch, launch_with};
use crate::error::CudaError;
use crate::fit::{RowPart, at_least};

/// Threads of a CTA for a whole row, and for a head.
const THREADS: [u32; 2] = [256, 64];
/// RowPart up to which a row counts as a head.
const HEAD_COLUMNS: usize = 512;

/// Which norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NormRule {
    /// `x * inv_rms * weight`.
    Rms,
    /// `(x - mean) * inv_std * weight + bias`.
    Layer,
}

impl NormRule {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Rms, Self::Layer];

    fn code(self) -> i64 {
        match self {
            Self::Rms => 0,
            Self::Layer => 1,
        }
    }
}

/// The text and macros of `norm`.
pub fn norm_source(rule: NormRule) -> Source {
    Source {
        name: "norm_rows",
        text: cu::NORM,
        headers: cu::MODEL_HEADERS,
        macros: vec![("KIND", rule.code())],
    }
}

/// Arguments of the kernel, as `NormArgs` in cu/rows/norm_rows.cu.
#[repr(C)]
struct NormArgs {
    x: u64,
    weight: u64,
    bias: u64,
    out: u64,
    eps: f32,
    columns: i32,
    x_row: i32,
    out_row: i32,
    padding: i32,
}

/// A norm's parameters on the card.
#[derive(Clone, Copy)]
pub struct NormWeights<'a> {
    /// `[columns]`
    pub weight: &'a Buffer,
    /// `[columns]`, of layer norm alone.
    pub bias: Option<&'a Buffer>,
    /// Added to the variance.
    pub eps: f32,
}

/// The kernel, made ready.
pub struct NormRows {
    gpu: Gpu,
    kernel: Arc<Kernel>,
}

impl NormRows {
    /// Compiles it for a card.
    ///
    /// # Errors
    /// It does not compile or load.
    pub fn new(jit: &Jit, gpu: &Gpu, rule: NormRule) -> Result<Self, CudaError> {
        Ok(Self {
            gpu: gpu.clone(),
            kernel: jit.kernel(&norm_source(rule))?,
        })
    }

    /// Norms `m` rows of `columns` elements from `x` to `out`.
    ///
    /// # Errors
    /// Buffers that are too short, a row too long for shared memory, or a launch the driver refuses.
    pub fn launch(
        &self,
        out: &Buffer,
        x: &Buffer,
        (m, columns): (usize, usize),
        weights: NormWeights<'_>,
    ) -> Result<(), CudaError> {
        let whole = RowPart::whole(columns);
        self.launch_parts(out, x, m, (whole, 1), weights)
    }

    /// Norms, in place, each of the `heads` parts of `columns` in `m` rows of `x`.
    ///
    /// # Errors
    /// As [`Self::launch`].
    pub fn launch_heads(
        &self,
        x: &Buffer,
        m: usize,
        (columns, heads): (RowPart, usize),
        weights: NormWeights<'_>,
    ) -> Result<(), CudaError> {
        self.launch_parts(x, x, m, (columns, heads), weights)
    }

    fn launch_parts(
        &self,
        out: &Buffer,
        x: &Buffer,
        m: usize,
        (columns, parts): (RowPart, usize),
        NormWeights { weight, bias, eps }: NormWeights<'_>,
    ) -> Result<(), CudaError> {
        let length = columns.len / parts;
        at_least("rows to norm", 4 * m * columns.row, x)?;
        at_least("normed rows", 4 * m * columns.row, out)?;
        at_least("weight of a norm", 4 * length, weight)?;
        bias.map_or(Ok(()), |bias| at_least("bias of a norm", 4 * length, bias))?;
        let info = self.gpu.info();
        if 4 * length + 1_024 > info.shared_bytes {
            return Err(CudaError::TooLarge {
                what: "row to norm",
                got: length,
            });
        }
        self.kernel.allow_shared(4 * length)?;
        let first = 4 * columns.first as u64;
        let mut args = NormArgs {
            x: x.address() + first,
            weight: weight.address(),
            bias: bias.map_or(0, Buffer::address),
            out: out.address() + first,
            eps,
            columns: length as i32,
            x_row: columns.row as i32,
            out_row: columns.row as i32,
            padding: 0,
        };
        let threads = THREADS[usize::from(length <= HEAD_COLUMNS)];
        let grid = Launch {
            shared_bytes: 4 * length,
            ..Launch::rows(m, parts, threads, info.overlaps_launches())
        };
        // SAFETY: the kernel's one parameter; all buffers are as long as its sizes say (checked).
        unsafe { launch_with(&self.kernel, &grid, &mut args) }
    }
}
