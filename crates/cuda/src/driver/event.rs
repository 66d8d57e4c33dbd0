//! Points in a stream's time.

use super::api::{self, Handle};
use super::gpu::Gpu;
use crate::error::CudaError;

/// A point in the stream's time.
pub(crate) struct Event {
    gpu: Gpu,
    handle: Handle,
}

// SAFETY: a handle of the driver's, which may be called from any thread.
unsafe impl Send for Event {}

impl Event {
    pub fn new(gpu: &Gpu) -> Result<Self, CudaError> {
        let driver = gpu.current()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: writes one handle.
        let code = unsafe { (driver.event_create)(&raw mut handle, 0) };
        driver.check("cuEventCreate", code)?;
        Ok(Self {
            gpu: gpu.clone(),
            handle,
        })
    }

    pub fn record(&self) -> Result<(), CudaError> {
        let driver = self.gpu.current()?;
        // SAFETY: both handles are alive.
        let code = unsafe { (driver.event_record)(self.handle, self.gpu.stream()) };
        driver.check("cuEventRecord", code)
    }

    /// Whether everything before it has run.
    pub fn has_passed(&self) -> Result<bool, CudaError> {
        let driver = self.gpu.current()?;
        // SAFETY: a recorded event.
        match unsafe { (driver.event_query)(self.handle) } {
            api::NOT_READY => Ok(false),
            code => driver.check("cuEventQuery", code).map(|()| true),
        }
    }

    /// Waits for everything before it.
    pub fn wait(&self) -> Result<(), CudaError> {
        let driver = self.gpu.current()?;
        // SAFETY: an event that is alive.
        let code = unsafe { (driver.event_synchronize)(self.handle) };
        driver.check("cuEventSynchronize", code)
    }

    /// Waits for this event and tells the time since an earlier one.
    pub fn since_s(&self, earlier: &Self) -> Result<f64, CudaError> {
        self.wait()?;
        let driver = self.gpu.current()?;
        let mut milliseconds = 0.0f32;
        // SAFETY: both were recorded and have passed; writes one float.
        let code = unsafe { (driver.event_elapsed)(&raw mut milliseconds, earlier.handle, self.handle) };
        driver.check("cuEventElapsedTime", code)?;
        Ok(f64::from(milliseconds) / 1e3)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if let Ok(driver) = self.gpu.current() {
            // SAFETY: made once, destroyed once.
            unsafe { (driver.event_destroy)(self.handle) };
        }
    }
}
