//! How many places a check found wrong.

use crate::driver::{Buffer, Gpu};
use crate::error::CudaError;

/// A counter on the card.
pub struct Wrong(Buffer);

impl Wrong {
    /// One.
    ///
    /// # Errors
    /// No memory.
    pub fn new(gpu: &Gpu) -> Result<Self, CudaError> {
        gpu.filled(4, 0).map(Self)
    }

    /// Its address, after it was set to 0.
    pub(crate) fn cleared(&self) -> Result<u64, CudaError> {
        self.0.fill(0)?;
        Ok(self.0.address())
    }

    /// What it counted; waits for the card.
    pub(crate) fn count(&self) -> Result<u32, CudaError> {
        let mut count = [0];
        self.0.read(0, &mut count)?;
        Ok(count[0])
    }
}
