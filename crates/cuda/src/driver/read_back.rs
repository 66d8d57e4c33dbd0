//! Small copies from a card that the host reads later: page-locked memory, and the point in the stream's time when they are there.

use std::ffi::c_void;

use super::buffer::Buffer;
use super::event::Event;
use super::gpu::Gpu;
use crate::error::CudaError;

/// Page-locked words that copies on the stream write.
pub(crate) struct ReadBack {
    gpu: Gpu,
    memory: *mut u32,
    len: usize,
    arrived: Event,
}

// SAFETY: the memory is this value's alone; the card writes it between `copy` and `wait`, which borrow it mutably.
unsafe impl Send for ReadBack {}
// SAFETY: as above; through a shared reference nothing is read or written.
unsafe impl Sync for ReadBack {}

impl ReadBack {
    /// Room for `len` words.
    ///
    /// # Errors
    /// The system has no memory to lock.
    pub(crate) fn new(gpu: &Gpu, len: usize) -> Result<Self, CudaError> {
        let arrived = Event::new(gpu)?;
        let driver = gpu.current()?;
        let mut memory: *mut c_void = std::ptr::null_mut();
        // SAFETY: writes one pointer.
        let code = unsafe { (driver.host_alloc)(&raw mut memory, 4 * len.max(1), 0) };
        driver.check("cuMemHostAlloc", code)?;
        Ok(Self {
            gpu: gpu.clone(),
            memory: memory.cast(),
            len,
            arrived,
        })
    }

    /// Puts copies of the first words of buffers, (buffer, words) each, behind one another on the stream.
    ///
    /// # Errors
    /// More words than there is room for or a buffer has, or a call that failed.
    pub(crate) fn copy(&mut self, parts: &[(&Buffer, usize)]) -> Result<(), CudaError> {
        let words = parts.iter().map(|(_, words)| words).sum();
        if words > self.len {
            return Err(CudaError::Length {
                what: "words to read back",
                expected: self.len,
                got: words,
            });
        }
        let driver = self.gpu.current()?;
        let mut place = 0;
        for &(buffer, words) in parts {
            buffer.check_range("read", 0, 4 * words)?;
            // SAFETY: both ranges are in range (checked), and the memory lives until the stream has passed the copy (see `drop`).
            let code = unsafe {
                let to = self.memory.add(place).cast();
                (driver.copy_out)(to, buffer.address(), 4 * words, self.gpu.stream())
            };
            driver.check("cuMemcpyDtoHAsync", code)?;
            place += words;
        }
        self.arrived.record()
    }

    /// Waits for the copies and gives all words.
    ///
    /// # Errors
    /// A copy, or an earlier kernel, that failed.
    pub(crate) fn wait(&mut self) -> Result<&[u32], CudaError> {
        self.arrived.wait()?;
        // SAFETY: `len` words that were allocated, and nothing is under way that writes them.
        Ok(unsafe { std::slice::from_raw_parts(self.memory, self.len) })
    }
}

impl Drop for ReadBack {
    fn drop(&mut self) {
        // A copy may still write the memory.
        let _ = self.gpu.synchronize();
        if let Ok(driver) = self.gpu.current() {
            // SAFETY: allocated once, freed once; the stream has passed all copies.
            unsafe { (driver.host_free)(self.memory.cast()) };
        }
    }
}
