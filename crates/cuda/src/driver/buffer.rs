//! Memory of a card.

use std::sync::Arc;

use bytemuck::Pod;

use super::api::Address;
use super::gpu::Gpu;
use crate::error::CudaError;

impl Gpu {
    /// Memory of the card, filled with `byte`.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn filled(&self, len_bytes: usize, byte: u8) -> Result<Buffer, CudaError> {
        let buffer = self.uninitialized(len_bytes)?;
        buffer.fill(byte)?;
        Ok(buffer)
    }

    /// Memory of the card holding `values`.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn upload<T: Pod>(&self, values: &[T]) -> Result<Buffer, CudaError> {
        let buffer = self.uninitialized(size_of_val(values))?;
        buffer.write(0, values)?;
        Ok(buffer)
    }

    /// Memory of the card holding `pattern` over and over, `len` elements in all.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn upload_repeated<T: Pod>(&self, pattern: &[T], len: usize) -> Result<Buffer, CudaError> {
        let buffer = self.uninitialized(len * size_of::<T>())?;
        for start in (0..len).step_by(pattern.len().max(1)) {
            let part = pattern.len().min(len - start);
            buffer.write(start * size_of::<T>(), &pattern[..part])?;
        }
        Ok(buffer)
    }

    /// Memory of the card with whatever is in it.
    ///
    /// # Errors
    /// Not enough memory.
    pub(crate) fn uninitialized(&self, len_bytes: usize) -> Result<Buffer, CudaError> {
        let driver = self.current()?;
        let mut address = 0;
        // SAFETY: writes one address. The driver refuses a length of 0; one byte is owned and never looked at then.
        let code = unsafe { (driver.memory_alloc)(&raw mut address, len_bytes.max(1)) };
        driver.check("cuMemAlloc", code)?;
        Ok(Buffer {
            gpu: self.clone(),
            address,
            len_bytes,
            whole: None,
        })
    }
}

/// Memory of a card, freed when dropped.
pub struct Buffer {
    gpu: Gpu,
    address: Address,
    len_bytes: usize,
    /// The memory it is a part of, which frees it.
    whole: Option<Arc<Buffer>>,
}

impl Buffer {
    /// Length in bytes.
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// A part of a buffer, which lives as long as its parts. Parts may overlap; the stream's order is the caller's care.
    ///
    /// # Errors
    /// A part that reaches beyond the end.
    pub fn part(self: &Arc<Self>, offset_bytes: usize, len_bytes: usize) -> Result<Self, CudaError> {
        self.check_range("part of a buffer", offset_bytes, len_bytes)?;
        Ok(Self {
            gpu: self.gpu.clone(),
            address: self.address + offset_bytes as u64,
            len_bytes,
            whole: Some(Arc::clone(self)),
        })
    }

    /// Its address on the card.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Sets every byte.
    ///
    /// # Errors
    /// A call that failed.
    pub fn fill(&self, byte: u8) -> Result<(), CudaError> {
        let driver = self.gpu.current()?;
        // SAFETY: the buffer is `len_bytes` long and alive; later work on the stream waits for it.
        let code = unsafe { (driver.fill)(self.address, byte, self.len_bytes, self.gpu.stream()) };
        driver.check("cuMemsetD8Async", code)
    }

    /// Copies `values` to `offset_bytes`.
    ///
    /// # Errors
    /// Values that reach beyond the end, or a call that failed.
    pub fn write<T: Pod>(&self, offset_bytes: usize, values: &[T]) -> Result<(), CudaError> {
        let len = size_of_val(values);
        self.check_range("write", offset_bytes, len)?;
        let driver = self.gpu.current()?;
        // SAFETY: in range (checked); the values outlive the copy because of the wait below.
        let code = unsafe {
            (driver.copy_in)(
                self.address + offset_bytes as u64,
                values.as_ptr().cast(),
                len,
                self.gpu.stream(),
            )
        };
        driver.check("cuMemcpyHtoDAsync", code)?;
        self.gpu.synchronize()
    }

    /// Copies values from `offset_bytes` to the host, after everything on the stream.
    ///
    /// # Errors
    /// Values beyond the end, or a call (also an earlier kernel) that failed.
    pub fn read<T: Pod>(&self, offset_bytes: usize, values: &mut [T]) -> Result<(), CudaError> {
        let len = size_of_val(values);
        self.check_range("read", offset_bytes, len)?;
        let driver = self.gpu.current()?;
        // SAFETY: in range (checked); the values outlive the copy because of the wait below.
        let code = unsafe {
            (driver.copy_out)(
                values.as_mut_ptr().cast(),
                self.address + offset_bytes as u64,
                len,
                self.gpu.stream(),
            )
        };
        driver.check("cuMemcpyDtoHAsync", code)?;
        self.gpu.synchronize()
    }

    /// Puts a copy of another buffer, no longer than this one, on the stream.
    ///
    /// # Errors
    /// A longer buffer, or a call that failed.
    pub fn copy_from(&self, other: &Self) -> Result<(), CudaError> {
        self.check_range("copy", 0, other.len_bytes)?;
        let driver = self.gpu.current()?;
        let stream = self.gpu.stream();
        // SAFETY: both are alive and long enough (checked).
        let code = unsafe { (driver.copy_within)(self.address, other.address, other.len_bytes, stream) };
        driver.check("cuMemcpyDtoDAsync", code)
    }

    pub(super) fn check_range(&self, what: &'static str, offset: usize, len: usize) -> Result<(), CudaError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len_bytes => Ok(()),
            _ => Err(CudaError::Length {
                what,
                expected: self.len_bytes,
                got: offset.saturating_add(len),
            }),
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.whole.is_some() {
            return;
        }
        if let Ok(driver) = self.gpu.current() {
            // SAFETY: allocated once, freed once; the driver waits for work that uses it.
            unsafe { (driver.memory_free)(self.address) };
        }
    }
}
