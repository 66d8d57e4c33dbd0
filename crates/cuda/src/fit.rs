//! Whether sizes and buffers fit what a kernel is told.

use crate::driver::Buffer;
use crate::error::CudaError;

/// Some columns of the rows of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowPart {
    /// The first one.
    pub first: usize,
    /// How many.
    pub len: usize,
    /// Columns of a whole row.
    pub row: usize,
}

impl RowPart {
    /// All `columns` of a row.
    pub fn whole(columns: usize) -> Self {
        Self {
            first: 0,
            len: columns,
            row: columns,
        }
    }
}

/// A size that the kernels can count: 32 bits on the card, and rounding up to a tile must not overflow either.
pub(crate) fn count(what: &'static str, size: usize) -> Result<usize, CudaError> {
    match size {
        1..=0x7fff_0000 => Ok(size),
        _ => Err(CudaError::TooLarge { what, got: size }),
    }
}

/// Refuses another length than the expected one.
pub(crate) fn exactly(what: &'static str, expected: usize, got: usize) -> Result<(), CudaError> {
    match got == expected {
        true => Ok(()),
        false => Err(CudaError::Length { what, expected, got }),
    }
}

/// Refuses less than the expected length.
pub(crate) fn room(what: &'static str, expected: usize, got: usize) -> Result<(), CudaError> {
    match got >= expected {
        true => Ok(()),
        false => Err(CudaError::Length { what, expected, got }),
    }
}

/// Refuses a buffer of fewer than `expected` bytes.
pub(crate) fn at_least(what: &'static str, expected: usize, buffer: &Buffer) -> Result<(), CudaError> {
    room(what, expected, buffer.len_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_beyond_32_bits_and_none_at_all_are_refused() {
        assert_eq!(count("N", 7), Ok(7));
        assert!(count("N", 0).is_err());
        assert!(count("N", 1 << 31).is_err());
    }
}
