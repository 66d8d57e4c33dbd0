//! A layer with INT8 weights in a card's memory.

use dualgrain_format::Int8Linear;

use super::row_slices::{ROWS_AT_ONCE, RowSlices};
use super::w8_image::{pack_w8, w8_image_bytes};
use crate::driver::{Buffer, Gpu};
use crate::error::CudaError;

/// A layer with INT8 weights in a card's memory.
pub struct LinearW8 {
    n: usize,
    k: usize,
    image: Buffer,
    s1: Buffer,
    bias: Option<Buffer>,
}

impl LinearW8 {
    /// Packs and uploads a layer.
    ///
    /// # Errors
    /// Sizes the kernels cannot count, or no memory.
    pub fn new(gpu: &Gpu, weights: &Int8Linear) -> Result<Self, CudaError> {
        let mut packer = W8Packer::new(gpu, (weights.n(), weights.k()))?;
        packer.push(weights)?;
        packer.finish()
    }

    /// Output features and input features.
    pub fn shape(&self) -> (usize, usize) {
        (self.n, self.k)
    }

    /// Bytes on the card: weights, scales, bias.
    pub fn bytes(&self) -> usize {
        let bias = self.bias.as_ref().map_or(0, Buffer::len_bytes);
        self.image.len_bytes() + self.s1.len_bytes() + bias
    }

    /// Where weights, scales and bias lie; 0 for none.
    pub(crate) fn addresses(&self) -> (u64, u64, u64) {
        let bias = self.bias.as_ref().map_or(0, Buffer::address);
        (self.image.address(), self.s1.address(), bias)
    }
}

/// Packs a layer that comes in slices of its rows, so that it need not be on the host twice.
pub struct W8Packer {
    gpu: Gpu,
    slices: RowSlices,
    image: Buffer,
    s1: Vec<f32>,
}

impl W8Packer {
    /// Room for a layer `[n, k]`.
    ///
    /// # Errors
    /// Sizes the kernels cannot count, or no memory.
    pub fn new(gpu: &Gpu, shape: (usize, usize)) -> Result<Self, CudaError> {
        let slices = RowSlices::new(shape)?;
        Ok(Self {
            gpu: gpu.clone(),
            slices,
            image: gpu.uninitialized(w8_image_bytes(shape.0, shape.1))?,
            s1: Vec::with_capacity(shape.0),
        })
    }

    /// Packs and uploads the next rows; all slices but the last have a multiple of 64.
    ///
    /// # Errors
    /// A slice that does not fit where it comes, or a call that failed.
    pub fn push(&mut self, slice: &Int8Linear) -> Result<(), CudaError> {
        let k = slice.k();
        let mut row = self.slices.take((slice.n(), k), slice.bias())?;
        self.s1.extend_from_slice(slice.s1());
        for codes in slice.w8().chunks(ROWS_AT_ONCE * k) {
            self.image.write(w8_image_bytes(row, k), &pack_w8(codes, k))?;
            row += codes.len() / k;
        }
        Ok(())
    }

    /// The layer, when all of its rows have come.
    ///
    /// # Errors
    /// Rows that are missing, or no memory.
    pub fn finish(self) -> Result<LinearW8, CudaError> {
        let (n, k) = self.slices.shape();
        Ok(LinearW8 {
            n,
            k,
            bias: self.slices.finish(&self.gpu)?,
            image: self.image,
            s1: self.gpu.upload(&self.s1)?,
        })
    }
}
