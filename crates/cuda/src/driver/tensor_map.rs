//! Descriptions of matrices for the bulk copy engine.

use super::api::{TensorMap, driver};
use super::buffer::Buffer;
use crate::error::CudaError;

/// Bytes of a matrix, seen by the bulk copy engine as boxes that it writes to shared memory with a 128-byte swizzle;
/// what lies outside reads as 0.
///
/// `columns` bytes a row, rows `stride_bytes` apart, boxes of `box_rows` by 128.
///
/// # Errors
/// The driver refuses the sizes.
pub(crate) fn byte_matrix_map(
    buffer: &Buffer,
    (rows, columns): (usize, usize),
    stride_bytes: usize,
    box_rows: u32,
) -> Result<TensorMap, CudaError> {
    const BYTES: u32 = 0;
    const NO_INTERLEAVE: u32 = 0;
    const SWIZZLE_128_BYTES: u32 = 3;
    const PROMOTE_TO_256_BYTES: u32 = 3;
    const OUTSIDE_IS_ZERO: u32 = 0;
    let driver = driver()?;
    let mut map = TensorMap([0; 16]);
    let (sizes, strides) = ([columns as u64, rows as u64], [stride_bytes as u64]);
    let (box_sizes, element_strides) = ([128, box_rows], [1, 1]);
    // SAFETY: the arrays have as many entries as a matrix has dimensions (one stride fewer); the map is only written.
    let code = unsafe {
        (driver.tensor_map)(
            &raw mut map,
            BYTES,
            2,
            buffer.address(),
            sizes.as_ptr(),
            strides.as_ptr(),
            box_sizes.as_ptr(),
            element_strides.as_ptr(),
            NO_INTERLEAVE,
            SWIZZLE_128_BYTES,
            PROMOTE_TO_256_BYTES,
            OUTSIDE_IS_ZERO,
        )
    };
    driver.check("cuTensorMapEncodeTiled", code)?;
    Ok(map)
}
