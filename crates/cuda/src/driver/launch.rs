//! Putting a kernel on the card's stream.

use std::ffi::c_void;

use super::api::{self, LaunchAttribute, LaunchConfig, TensorMap};
use super::gpu::Buffer;
use crate::compiler::Kernel;
use crate::error::CudaError;

/// Blocks and threads of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: usize,
    /// Blocks along x that run together as a cluster.
    pub cluster: u32,
    /// Whether the kernel may start while the one before it finishes (it waits for it by itself).
    pub programmatic: bool,
}

/// Launches a kernel.
///
/// # Safety
/// `arguments` point to values of exactly the kernel's parameter types, in order, and the buffers they name are alive
/// until the kernel has run and as large as the kernel expects.
///
/// # Errors
/// The driver refuses the launch.
pub(crate) unsafe fn launch(
    kernel: &Kernel,
    launch: &Launch,
    arguments: &mut [*mut c_void],
) -> Result<(), CudaError> {
    let device = kernel.device();
    let driver = device.current()?;
    let mut attributes = Vec::with_capacity(2);
    if launch.cluster > 1 {
        attributes.push(attribute(api::LAUNCH_CLUSTER, &[launch.cluster, 1, 1]));
    }
    if launch.programmatic {
        attributes.push(attribute(api::LAUNCH_PROGRAMMATIC, &[1]));
    }
    let config = LaunchConfig {
        grid: launch.grid,
        block: [launch.threads, 1, 1],
        shared_bytes: launch.shared_bytes as u32,
        stream: device.stream(),
        attributes: attributes.as_ptr(),
        num_attributes: attributes.len() as u32,
    };
    // SAFETY: handles and configuration are alive; the arguments are the caller's promise.
    let code = unsafe {
        (driver.launch)(
            &raw const config,
            kernel.function(),
            arguments.as_mut_ptr(),
            std::ptr::null_mut(),
        )
    };
    driver.check("cuLaunchKernelEx", code)
}

fn attribute(id: u32, numbers: &[u32]) -> LaunchAttribute {
    let mut value = [0; 16];
    value[..numbers.len()].copy_from_slice(numbers);
    LaunchAttribute {
        id,
        padding: 0,
        value,
    }
}

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
    let driver = api::driver()?;
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
