//! What a card's memory gives at best, measured.

use std::ffi::c_void;

use super::timing::times_s;
use crate::compiler::{Jit, Source};
use crate::cu;
use crate::driver::{Gpu, Launch, launch};
use crate::error::CudaError;

/// Bytes read in a go; many times any cache.
const READ_BYTES: usize = 4 << 30;
const THREADS: u32 = 512;
/// CTAs a multiprocessor.
const CTAS: usize = 4;

/// The text and macros of `read_memory`.
pub fn read_memory_source() -> Source {
    Source {
        name: "read_memory",
        text: cu::READ_MEMORY,
        headers: &[],
        macros: Vec::new(),
    }
}

/// Bytes a second at which the card reads its memory, the best of `repeats`.
///
/// # Errors
/// Not enough memory, or a kernel that does not compile or run.
pub fn read_bytes_per_s(jit: &Jit, gpu: &Gpu, repeats: usize) -> Result<f64, CudaError> {
    let kernel = jit.kernel(&read_memory_source())?;
    let size_bytes = READ_BYTES.min(gpu.free_bytes()? / 2);
    let (from, to) = (gpu.filled(size_bytes, 0x5a)?, gpu.filled(4, 0)?);
    let grid = Launch {
        grid: [(CTAS * gpu.info().num_sms) as u32, 1, 1],
        threads: THREADS,
        shared_bytes: 0,
        cluster: 1,
        programmatic: false,
    };
    let read = |_| {
        let (mut from, mut count, mut to) = (from.address(), (size_bytes / 16) as u64, to.address());
        let mut pointers: [*mut c_void; 3] = [
            (&raw mut from).cast(),
            (&raw mut count).cast(),
            (&raw mut to).cast(),
        ];
        // SAFETY: the kernel's three parameters; it reads `count` times 16 bytes of `from` and writes 4 of `to`.
        unsafe { launch(&kernel, &grid, &mut pointers) }
    };
    let times = times_s(gpu, repeats, 1, read)?;
    Ok(size_bytes as f64 / times.first().copied().unwrap_or(f64::INFINITY))
}
