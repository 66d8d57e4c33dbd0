//! Compiled code on a card.

use std::ffi::CString;

use super::api::{self, Handle};
use super::cubin;
use super::gpu::Gpu;
use crate::error::CudaError;

/// A kernel on the card.
pub struct Kernel {
    gpu: Gpu,
    module: Handle,
    function: Handle,
    num_registers: i32,
    local_bytes: i32,
}

// SAFETY: as for the card: handles that are never changed after `load`.
unsafe impl Send for Kernel {}
// SAFETY: as above.
unsafe impl Sync for Kernel {}

impl Kernel {
    pub(crate) fn load(gpu: &Gpu, name: &str, cubin: &[u8]) -> Result<Self, CudaError> {
        // The driver reads as far as the file's own tables say; a file that is cut short must not get there.
        cubin::kernels(cubin)?;
        let driver = gpu.current()?;
        let mut kernel = Self {
            gpu: gpu.clone(),
            module: std::ptr::null_mut(),
            function: std::ptr::null_mut(),
            num_registers: 0,
            local_bytes: 0,
        };
        // SAFETY: a whole ELF file (checked); writes one handle.
        let code = unsafe { (driver.module_load)(&raw mut kernel.module, cubin.as_ptr().cast()) };
        driver.check("cuModuleLoadData", code)?;
        let symbol = CString::new(name).unwrap_or_default();
        // SAFETY: a live module and a string; writes one handle.
        let code =
            unsafe { (driver.module_function)(&raw mut kernel.function, kernel.module, symbol.as_ptr()) };
        driver.check("cuModuleGetFunction", code)?;
        kernel.num_registers = kernel.attribute(api::FUNCTION_NUM_REGISTERS)?;
        kernel.local_bytes = kernel.attribute(api::FUNCTION_LOCAL_BYTES)?;
        Ok(kernel)
    }

    fn attribute(&self, which: i32) -> Result<i32, CudaError> {
        let driver = self.gpu.current()?;
        let mut value = 0;
        // SAFETY: a live function; writes one integer.
        let code = unsafe { (driver.function_attribute)(&raw mut value, which, self.function) };
        driver.check("cuFuncGetAttribute", code)?;
        Ok(value)
    }

    /// Lets blocks use this much dynamic shared memory.
    ///
    /// # Errors
    /// More than the card has.
    pub fn allow_shared(&self, size_bytes: usize) -> Result<(), CudaError> {
        let driver = self.gpu.current()?;
        // SAFETY: a live function; values out of range give an error code.
        let code = unsafe {
            (driver.set_function_attribute)(
                self.function,
                api::FUNCTION_DYNAMIC_SHARED_BYTES,
                i32::try_from(size_bytes).unwrap_or(i32::MAX),
            )
        };
        driver.check("cuFuncSetAttribute", code)
    }

    /// Blocks of so many threads with so much dynamic shared memory that a multiprocessor holds at once.
    ///
    /// # Errors
    /// A call that failed.
    pub fn blocks_per_sm(&self, threads: usize, shared_bytes: usize) -> Result<usize, CudaError> {
        let driver = self.gpu.current()?;
        let (mut blocks, threads) = (0, i32::try_from(threads).unwrap_or(i32::MAX));
        // SAFETY: a live function; writes one integer.
        let code =
            unsafe { (driver.max_active_blocks)(&raw mut blocks, self.function, threads, shared_bytes) };
        driver.check("cuOccupancyMaxActiveBlocksPerMultiprocessor", code)?;
        Ok(usize::try_from(blocks).unwrap_or(0))
    }

    /// Registers a thread.
    pub fn num_registers(&self) -> i32 {
        self.num_registers
    }

    /// Bytes of local memory a thread.
    pub fn local_bytes(&self) -> i32 {
        self.local_bytes
    }

    pub(crate) fn function(&self) -> Handle {
        self.function
    }

    pub(crate) fn gpu(&self) -> &Gpu {
        &self.gpu
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if let (Ok(driver), false) = (self.gpu.current(), self.module.is_null()) {
            // SAFETY: loaded once, unloaded once.
            unsafe { (driver.module_unload)(self.module) };
        }
    }
}
