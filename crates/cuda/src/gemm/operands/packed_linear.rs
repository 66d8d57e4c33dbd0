//! A W4 layer in a card's memory.

use std::sync::Arc;

use dualgrain_format::{GroupSize, QuantizedLinear};
use half::f16;

use super::float_scales::pack_float_scales;
use super::packing::{BLOCK_N, image_bytes, pack};
use crate::driver::{Buffer, Gpu};
use crate::error::CudaError;
use crate::fit::count;

/// A W4 layer in a card's memory.
pub struct PackedLinear {
    n: usize,
    k: usize,
    group: GroupSize,
    /// Whether the image holds float group scales, which only `gemm_w4f_sm90` reads.
    float_scales: bool,
    image: Buffer,
    s1: Arc<Buffer>,
    bias: Option<Arc<Buffer>>,
}

impl PackedLinear {
    /// Packs and uploads a layer.
    ///
    /// # Errors
    /// Sizes the kernels cannot count, or no memory.
    pub fn new(gpu: &Gpu, layer: &QuantizedLinear) -> Result<Self, CudaError> {
        let bias = layer.bias().map(|bias| gpu.upload(bias).map(Arc::new));
        Ok(Self {
            n: count("N", layer.n())?,
            k: count("K", layer.k())?,
            group: layer.group_size(),
            float_scales: false,
            image: gpu.upload(&pack(layer)?)?,
            s1: Arc::new(gpu.upload(layer.s1())?),
            bias: bias.transpose()?,
        })
    }

    /// The codes and bias of a layer in groups of 128, with `scales` `[N, groups]` as float group scales and 8 as every
    /// zero point, for `gemm_w4f_sm90`; rows are repeated up to `n`, as [`PackedLinear::repeated`] does.
    ///
    /// # Errors
    /// Scales or rows that do not fit, sizes the kernels cannot count, or no memory.
    pub fn with_float_scales(
        gpu: &Gpu,
        layer: &QuantizedLinear,
        scales: &[f16],
        n: usize,
    ) -> Result<Self, CudaError> {
        let once = pack_float_scales(layer, scales)?;
        let packed = Self::of_image(gpu, layer, &once, n)?;
        Ok(Self {
            float_scales: true,
            ..packed
        })
    }

    /// The same layer at another place, so that a timing does not find it in a cache.
    ///
    /// # Errors
    /// No memory.
    pub fn copy(&self, gpu: &Gpu) -> Result<Self, CudaError> {
        let image = gpu.filled(self.image.len_bytes(), 0)?;
        image.copy_from(&self.image)?;
        Ok(Self {
            image,
            s1: Arc::clone(&self.s1),
            bias: self.bias.clone(),
            ..*self
        })
    }

    /// A layer of `n` rows: those of `layer`, over and over. Large layers for timing are made quickly so.
    ///
    /// # Errors
    /// A layer whose rows are no multiple of 64, sizes the kernels cannot count, or no memory.
    pub fn repeated(gpu: &Gpu, layer: &QuantizedLinear, n: usize) -> Result<Self, CudaError> {
        Self::of_image(gpu, layer, &pack(layer)?, n)
    }

    fn of_image(gpu: &Gpu, layer: &QuantizedLinear, once: &[u8], n: usize) -> Result<Self, CudaError> {
        let group = layer.group_size();
        if n != layer.n() && !layer.n().is_multiple_of(BLOCK_N) {
            return Err(CudaError::Length {
                what: "rows to repeat, in blocks of 64",
                expected: layer.n().next_multiple_of(BLOCK_N),
                got: layer.n(),
            });
        }
        let image = gpu.upload_repeated(once, image_bytes((count("N", n)?, layer.k()), group)?)?;
        let cycled = |values: &[f32]| gpu.upload_repeated(values, n);
        Ok(Self {
            n,
            k: count("K", layer.k())?,
            group,
            float_scales: false,
            image,
            s1: Arc::new(cycled(layer.s1())?),
            bias: layer.bias().map(|bias| cycled(bias).map(Arc::new)).transpose()?,
        })
    }

    /// A layer whose image (as [`pack`] lays it out) and channel scales are on the card already.
    ///
    /// # Errors
    /// Sizes the kernels cannot count, or buffers of other lengths.
    pub fn from_parts(
        (n, k): (usize, usize),
        group: GroupSize,
        image: Buffer,
        s1: Arc<Buffer>,
    ) -> Result<Self, CudaError> {
        let expected = image_bytes((count("N", n)?, count("K", k)?), group)?;
        let lengths = [
            ("image", expected, image.len_bytes()),
            ("s1", 4 * n, s1.len_bytes()),
        ];
        if let Some(&(what, expected, got)) = lengths.iter().find(|(_, expected, got)| expected != got) {
            return Err(CudaError::Length { what, expected, got });
        }
        Ok(Self {
            n,
            k,
            group,
            float_scales: false,
            image,
            s1,
            bias: None,
        })
    }

    /// The packed image.
    pub fn image(&self) -> &Buffer {
        &self.image
    }

    /// The channel scales.
    pub fn s1(&self) -> &Buffer {
        &self.s1
    }

    /// The bias, where the layer has one.
    pub(crate) fn bias(&self) -> Option<&Buffer> {
        self.bias.as_deref()
    }

    /// Whether the image holds float group scales.
    pub(crate) fn has_float_scales(&self) -> bool {
        self.float_scales
    }

    /// Output features and input features.
    pub fn shape(&self) -> (usize, usize) {
        (self.n, self.k)
    }

    /// Columns that share a group scale.
    pub fn group(&self) -> GroupSize {
        self.group
    }

    /// Bytes of the packed weights.
    pub fn image_bytes(&self) -> usize {
        self.image.len_bytes()
    }
}
