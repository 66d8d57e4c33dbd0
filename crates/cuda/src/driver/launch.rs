//! Putting a kernel on the card's stream.

use std::cell::Cell;
use std::ffi::c_void;

use super::api::{self, LaunchAttribute, LaunchConfig};
use super::kernel::Kernel;
use crate::error::CudaError;

thread_local! {
    /// Whether this thread leaves launches out.
    static SKIPS: Cell<bool> = const { Cell::new(false) };
}

/// Calls `run`; what it launches on this thread is left out, because a recorded graph stands for it.
pub(crate) fn without_launches<T>(run: impl FnOnce() -> T) -> T {
    SKIPS.set(true);
    let done = run();
    SKIPS.set(false);
    done
}

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

impl Launch {
    /// `parts` CTAs of `threads` threads for each of `m` rows.
    pub(crate) fn rows(m: usize, parts: usize, threads: u32, programmatic: bool) -> Self {
        Self {
            grid: [m as u32, parts as u32, 1],
            threads,
            shared_bytes: 0,
            cluster: 1,
            programmatic,
        }
    }
}

/// Launches a kernel of one parameter.
///
/// # Safety
/// As [`launch`]; `args` is the kernel's parameter.
///
/// # Errors
/// As [`launch`].
pub(crate) unsafe fn launch_with<T>(kernel: &Kernel, grid: &Launch, args: &mut T) -> Result<(), CudaError> {
    // SAFETY: the caller's promise.
    unsafe { launch(kernel, grid, &mut [std::ptr::from_mut(args).cast()]) }
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
    let gpu = kernel.gpu();
    // No blocks: nothing to do, which the driver would call invalid.
    if SKIPS.get() || launch.grid.contains(&0) {
        return Ok(());
    }
    let driver = gpu.current()?;
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
        stream: gpu.stream(),
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
