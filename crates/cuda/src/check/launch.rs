//! Launches of the kernels that make and check operands.

use std::ffi::c_void;

use crate::driver::{Kernel, Launch, launch};
use crate::error::CudaError;

/// Threads of a CTA, in every kernel here.
pub(crate) const THREADS: u32 = 256;

/// A kernel's argument, as the driver takes it.
pub(crate) fn pointer<T>(value: &mut T) -> *mut c_void {
    std::ptr::from_mut(value).cast()
}

/// Puts a kernel on the card's stream, [`THREADS`] threads a CTA.
pub(crate) fn run(
    kernel: &Kernel,
    [x, y]: [usize; 2],
    arguments: &mut [*mut c_void],
) -> Result<(), CudaError> {
    let size = |what, got: usize| {
        u32::try_from(got)
            .ok()
            .filter(|&size| size <= i32::MAX as u32)
            .ok_or(CudaError::TooLarge { what, got })
    };
    let geometry = Launch {
        grid: [size("CTAs", x)?, size("CTAs", y)?, 1],
        threads: THREADS,
        shared_bytes: 0,
        cluster: 1,
        programmatic: false,
    };
    // SAFETY: every caller passes its kernel's parameters in order, and buffers as long as the sizes beside them say.
    unsafe { launch(kernel, &geometry, arguments) }
}
