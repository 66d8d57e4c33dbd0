//! Small copies to a card that need not wait: through page-locked memory, which the card reads when its stream gets there.

use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use bytemuck::Pod;

use super::buffer::Buffer;
use super::gpu::Gpu;
use crate::error::CudaError;

/// Bytes of the ring; a decode step of 256 sequences copies a few hundred kilobytes.
const RING_BYTES: usize = 8 << 20;
/// Copies begin at multiples of so many bytes.
const ALIGNMENT: usize = 64;

/// A ring of page-locked memory. Its end is reached every few steps; then the stream is waited for, so that no bytes are
/// replaced that the card has yet to read.
pub(crate) struct Staging {
    gpu: Gpu,
    memory: *mut u8,
    next: Mutex<usize>,
}

// SAFETY: the memory is written under the lock alone, and never freed before `drop`.
unsafe impl Send for Staging {}
// SAFETY: as above.
unsafe impl Sync for Staging {}

impl Staging {
    /// A ring for copies on the card's stream.
    ///
    /// # Errors
    /// The system has no memory to lock.
    pub(crate) fn new(gpu: &Gpu) -> Result<Self, CudaError> {
        let driver = gpu.current()?;
        let mut memory: *mut c_void = std::ptr::null_mut();
        // SAFETY: writes one pointer.
        let code = unsafe { (driver.host_alloc)(&raw mut memory, RING_BYTES, 0) };
        driver.check("cuMemHostAlloc", code)?;
        Ok(Self {
            gpu: gpu.clone(),
            memory: memory.cast(),
            next: Mutex::new(0),
        })
    }

    /// Puts a copy of `values` to `offset_bytes` of a buffer on the stream. The values may change afterwards.
    ///
    /// # Errors
    /// Values that reach beyond the end, or a call that failed.
    pub(crate) fn copy<T: Pod>(
        &self,
        to: &Buffer,
        offset_bytes: usize,
        values: &[T],
    ) -> Result<(), CudaError> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        if bytes.len() > RING_BYTES {
            return to.write(offset_bytes, values);
        }
        to.check_range("write", offset_bytes, bytes.len())?;
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if *next + bytes.len() > RING_BYTES {
            self.gpu.synchronize()?;
            *next = 0;
        }
        let driver = self.gpu.current()?;
        // SAFETY: the place lies in the ring (checked above), the card has read what stood there (the wait above), and the copy
        // on the stream reads it before the ring comes round again.
        let code = unsafe {
            let place = self.memory.add(*next);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len());
            let address = to.address() + offset_bytes as u64;
            (driver.copy_in)(address, place.cast(), bytes.len(), self.gpu.stream())
        };
        *next = (*next + bytes.len()).next_multiple_of(ALIGNMENT);
        driver.check("cuMemcpyHtoDAsync", code)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // A copy may still read the memory.
        let _ = self.gpu.synchronize();
        if let Ok(driver) = self.gpu.current() {
            // SAFETY: allocated once, freed once; the stream has passed all copies.
            unsafe { (driver.host_free)(self.memory.cast()) };
        }
    }
}
