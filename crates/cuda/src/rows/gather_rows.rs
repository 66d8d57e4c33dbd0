//! Rows of a table by number.

use std::sync::Arc;

use crate::compiler::{Jit, Source};
use crate::cu;
use crate::driver::{Buffer, Gpu, Kernel, Launch, launch_with};
use crate::error::CudaError;
use crate::fit::at_least;

/// Threads of a CTA; one CTA takes a row.
const THREADS: u32 = 256;

/// Type of a table's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TableType {
    /// 32-bit floats.
    F32,
    /// Brain floats.
    Bf16,
}

impl TableType {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::F32, Self::Bf16];

    fn code(self) -> i64 {
        match self {
            Self::F32 => 0,
            Self::Bf16 => 1,
        }
    }

    fn size_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// The text and macros of `gather_rows`.
pub fn gather_rows_source(table: TableType) -> Source {
    Source {
        name: "gather_rows",
        text: cu::GATHER_ROWS,
        headers: cu::MODEL_HEADERS,
        macros: vec![("TYPE", table.code())],
    }
}

/// Arguments of the kernel, as `GatherArgs` in cu/rows/gather_rows.cu.
#[repr(C)]
struct GatherArgs {
    table: u64,
    rows: u64,
    out: u64,
    columns: u64,
}

/// The kernel, made ready.
pub struct GatherRows {
    kernel: Arc<Kernel>,
    table: TableType,
    programmatic: bool,
}

impl GatherRows {
    /// Compiles it for a card and a type of table.
    ///
    /// # Errors
    /// It does not compile or load.
    pub fn new(jit: &Jit, gpu: &Gpu, table: TableType) -> Result<Self, CudaError> {
        Ok(Self {
            kernel: jit.kernel(&gather_rows_source(table))?,
            table,
            programmatic: gpu.info().overlaps_launches(),
        })
    }

    /// `out[i] = table[rows[i]]` for `m` numbers (u32) of rows that the table has, as f32 `[m, columns]`.
    ///
    /// # Errors
    /// Buffers that are too short, or a launch the driver refuses.
    pub fn launch(
        &self,
        out: &Buffer,
        table: &Buffer,
        rows: &Buffer,
        (m, columns): (usize, usize),
    ) -> Result<(), CudaError> {
        at_least("gathered rows", 4 * m * columns, out)?;
        at_least("a row of the table", self.table.size_bytes() * columns, table)?;
        at_least("numbers of rows", 4 * m, rows)?;
        let mut args = GatherArgs {
            table: table.address(),
            rows: rows.address(),
            out: out.address(),
            columns: columns as u64,
        };
        let grid = Launch::rows(m, 1, THREADS, self.programmatic);
        // SAFETY: the kernel's one parameter; outputs and numbers are long enough (checked), and the caller promises that the table has the rows.
        unsafe { launch_with(&self.kernel, &grid, &mut args) }
    }
}
