//! A layer with float weights in a card's memory.

use dualgrain_format::{FloatLinear, FloatValues};

use super::float_image::{FloatKind, pack_bf16, pack_f32};
use super::row_slices::{ROWS_AT_ONCE, RowSlices};
use crate::driver::{Buffer, Gpu};
use crate::error::CudaError;
use crate::fit::exactly;

/// A layer with float weights in a card's memory, in the precision they came in.
pub struct LinearFloat {
    n: usize,
    k: usize,
    kind: FloatKind,
    image: Buffer,
    bias: Option<Buffer>,
}

impl LinearFloat {
    /// Packs and uploads a layer.
    ///
    /// # Errors
    /// Sizes the kernels cannot count, or no memory.
    pub fn new(gpu: &Gpu, weights: &FloatLinear) -> Result<Self, CudaError> {
        let kind = FloatKind::of(weights.weight());
        let mut packer = FloatPacker::new(gpu, (weights.n(), weights.k()), kind)?;
        packer.push(weights)?;
        packer.finish()
    }

    /// Output features and input features.
    pub fn shape(&self) -> (usize, usize) {
        (self.n, self.k)
    }

    /// What the weights are kept in.
    pub fn kind(&self) -> FloatKind {
        self.kind
    }

    /// Bytes on the card: weights and bias.
    pub fn bytes(&self) -> usize {
        self.image.len_bytes() + self.bias.as_ref().map_or(0, Buffer::len_bytes)
    }

    /// Where weights and bias lie; 0 for none.
    pub(crate) fn addresses(&self) -> (u64, u64) {
        let bias = self.bias.as_ref().map_or(0, Buffer::address);
        (self.image.address(), bias)
    }
}

/// Packs a layer that comes in slices of its rows, so that it need not be on the host twice.
pub struct FloatPacker {
    gpu: Gpu,
    slices: RowSlices,
    kind: FloatKind,
    image: Buffer,
}

impl FloatPacker {
    /// Room for a layer `[n, k]` of one kind.
    ///
    /// # Errors
    /// Sizes the kernels cannot count, or no memory.
    pub fn new(gpu: &Gpu, shape: (usize, usize), kind: FloatKind) -> Result<Self, CudaError> {
        let slices = RowSlices::new(shape)?;
        Ok(Self {
            gpu: gpu.clone(),
            slices,
            kind,
            image: gpu.uninitialized(kind.image_bytes(shape.0, shape.1))?,
        })
    }

    /// Packs and uploads the next rows; all slices but the last have a multiple of 64.
    ///
    /// # Errors
    /// A slice of another kind or one that does not fit where it comes, or a call that failed.
    pub fn push(&mut self, slice: &FloatLinear) -> Result<(), CudaError> {
        let (k, kind) = (slice.k(), FloatKind::of(slice.weight()));
        exactly(
            "bytes of a slice's values",
            self.kind.size_bytes(),
            kind.size_bytes(),
        )?;
        let row = self.slices.take((slice.n(), k), slice.bias())?;
        match slice.weight() {
            FloatValues::F32(values) => self.write(values.chunks(ROWS_AT_ONCE * k), row, pack_f32),
            FloatValues::Bf16(values) => self.write(values.chunks(ROWS_AT_ONCE * k), row, pack_bf16),
        }
    }

    fn write<'a, T: bytemuck::Pod>(
        &self,
        parts: impl Iterator<Item = &'a [T]>,
        mut row: usize,
        pack: fn(&[T], usize) -> Vec<T>,
    ) -> Result<(), CudaError> {
        let (_, k) = self.slices.shape();
        for values in parts {
            let offset = self.kind.image_bytes(row, k);
            self.image.write(offset, &pack(values, k))?;
            row += values.len() / k;
        }
        Ok(())
    }

    /// The layer, when all of its rows have come.
    ///
    /// # Errors
    /// Rows that are missing, or no memory.
    pub fn finish(self) -> Result<LinearFloat, CudaError> {
        let (n, k) = self.slices.shape();
        Ok(LinearFloat {
            n,
            k,
            kind: self.kind,
            bias: self.slices.finish(&self.gpu)?,
            image: self.image,
        })
    }
}
