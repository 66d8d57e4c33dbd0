//! Memory of a card that is allocated once and handed out piece by piece.

use std::sync::Arc;

use super::buffer::Buffer;
use super::gpu::Gpu;
use crate::error::CudaError;

/// Parts of an arena begin at multiples of this; the libraries are fastest so.
const ALIGNMENT: usize = 512;

/// Memory that is handed out piece by piece and taken back all at once: allocating on a card stops it.
pub struct Arena {
    all: Arc<Buffer>,
    used: usize,
}

impl Arena {
    /// Takes memory of the card.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn new(gpu: &Gpu, size_bytes: usize) -> Result<Self, CudaError> {
        let all = Arc::new(gpu.uninitialized(size_bytes)?);
        Ok(Self { all, used: 0 })
    }

    /// Forgets what was handed out. What is handed out next overlaps it; work on the card's stream happens in order, so
    /// pieces that are only used there need no waiting.
    pub fn reset(&mut self) {
        self.used = 0;
    }

    /// A piece of so many bytes.
    ///
    /// # Errors
    /// Not enough left.
    pub fn take(&mut self, len_bytes: usize) -> Result<Buffer, CudaError> {
        let part = self.all.part(self.used, len_bytes)?;
        self.used = (self.used + len_bytes).next_multiple_of(ALIGNMENT);
        Ok(part)
    }

    /// Bytes that are left.
    pub fn left_bytes(&self) -> usize {
        self.all.len_bytes().saturating_sub(self.used)
    }
}
