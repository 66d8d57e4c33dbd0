//! Whether buffers are long enough for what a kernel is told.

use crate::driver::Buffer;
use crate::error::CudaError;

/// Some columns of the rows of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns {
    /// The first one.
    pub first: usize,
    /// How many.
    pub len: usize,
    /// Columns of a whole row.
    pub row: usize,
}

impl Columns {
    /// All `columns` of a row.
    pub fn whole(columns: usize) -> Self {
        Self {
            first: 0,
            len: columns,
            row: columns,
        }
    }
}

/// Refuses a buffer of fewer than `expected` bytes.
pub(crate) fn at_least(what: &'static str, expected: usize, buffer: &Buffer) -> Result<(), CudaError> {
    let got = buffer.len_bytes();
    match got >= expected {
        true => Ok(()),
        false => Err(CudaError::Length { what, expected, got }),
    }
}
