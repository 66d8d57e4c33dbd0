//! Errors of a card in the words of the contract.

use dualgrain_device::DeviceError;

use super::CudaDevice;
use crate::error::CudaError;

/// `CUDA_ERROR_OUT_OF_MEMORY`.
const OUT_OF_MEMORY: i32 = 2;

impl CudaDevice {
    /// Runs an operation; an error names it, the card and the sizes.
    pub(super) fn operation<T>(
        &self,
        operation: &'static str,
        sizes: &[usize],
        run: impl FnOnce() -> Result<T, CudaError>,
    ) -> Result<T, DeviceError> {
        self.timed(operation, run)
            .map_err(|error| self.failed(operation, sizes, &error))
    }

    pub(super) fn failed(&self, operation: &'static str, sizes: &[usize], error: &CudaError) -> DeviceError {
        let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
        DeviceError::Operation {
            operation,
            device: self.name.clone(),
            sizes: sizes.join(" x "),
            problem: error.to_string(),
        }
    }

    /// Makes a buffer of `size_bytes`; an error names it, the card and the size.
    pub(super) fn buffer<T>(
        &self,
        what: &'static str,
        size_bytes: usize,
        make: impl FnOnce() -> Result<T, CudaError>,
    ) -> Result<T, DeviceError> {
        make().map_err(|error| match error {
            CudaError::Call {
                code: OUT_OF_MEMORY, ..
            } => DeviceError::OutOfMemory {
                what,
                device: self.name.clone(),
                size_bytes,
            },
            error => self.failed(what, &[size_bytes], &error),
        })
    }
}
