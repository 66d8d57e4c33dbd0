//! A card in use: its context and its stream.

use std::sync::Arc;

use super::api::{self, Driver, Handle, driver};
use super::gpu_info::{GpuInfo, device_handle, gpus};
use crate::error::CudaError;

/// A card in use: its context and one stream. Clones share both.
#[derive(Clone)]
pub struct Gpu(Arc<Inner>);

struct Inner {
    driver: &'static Driver,
    info: GpuInfo,
    handle: i32,
    context: Handle,
    stream: Handle,
}

// SAFETY: the driver may be called from any thread; the context is made current before every call (`current`), and the
// handles are never changed after `open`.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Gpu {
    /// Opens card `index`.
    ///
    /// # Errors
    /// No driver, no such card, an unsupported one, or a call that failed.
    pub fn open(index: usize) -> Result<Self, CudaError> {
        let (driver, all) = (driver()?, gpus()?);
        let count = all.len();
        let info = all
            .into_iter()
            .nth(index)
            .ok_or(CudaError::GpuIndex { asked: index, count })?;
        info.check_supported()?;
        let handle = device_handle(driver, index)?;
        let mut context = std::ptr::null_mut();
        // SAFETY: writes one handle.
        let code = unsafe { (driver.context_retain)(&raw mut context, handle) };
        driver.check("cuDevicePrimaryCtxRetain", code)?;
        let mut inner = Inner {
            driver,
            info,
            handle,
            context,
            stream: std::ptr::null_mut(),
        };
        inner.current()?;
        // SAFETY: writes one handle, in the context made current just now.
        let code = unsafe { (driver.stream_create)(&raw mut inner.stream, api::STREAM_NON_BLOCKING) };
        driver.check("cuStreamCreate", code)?;
        Ok(Self(Arc::new(inner)))
    }

    /// What the card says of itself.
    pub fn info(&self) -> &GpuInfo {
        &self.0.info
    }

    /// Free bytes of its memory.
    ///
    /// # Errors
    /// A call that failed.
    pub fn free_bytes(&self) -> Result<usize, CudaError> {
        let driver = self.current()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: writes two sizes.
        let code = unsafe { (driver.memory_info)(&raw mut free, &raw mut total) };
        driver.check("cuMemGetInfo", code)?;
        Ok(free)
    }

    /// Waits for everything on the stream.
    ///
    /// # Errors
    /// Whatever went wrong in a kernel shows here.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        let driver = self.current()?;
        // SAFETY: a live stream.
        let code = unsafe { (driver.stream_synchronize)(self.0.stream) };
        driver.check("cuStreamSynchronize", code)
    }

    /// Makes the context current on this thread and gives the functions.
    pub(crate) fn current(&self) -> Result<&'static Driver, CudaError> {
        self.0.current()
    }

    pub(crate) fn stream(&self) -> Handle {
        self.0.stream
    }
}

impl Inner {
    fn current(&self) -> Result<&'static Driver, CudaError> {
        // SAFETY: a context this value has retained.
        let code = unsafe { (self.driver.context_set)(self.context) };
        self.driver.check("cuCtxSetCurrent", code)?;
        Ok(self.driver)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.current().is_ok() && !self.stream.is_null() {
            // SAFETY: buffers, graphs and modules keep a clone of the card, so nothing of it is left.
            unsafe { (self.driver.stream_destroy)(self.stream) };
        }
        // SAFETY: retained once in `open`.
        unsafe { (self.driver.context_release)(self.handle) };
    }
}
