//! Keys and values of all layers in a card's memory.

use dualgrain_device::{CacheFormat, CacheShape, PAGE_TOKENS};

use crate::driver::{Buffer, Gpu};
use crate::error::CudaError;

/// Keys and values of all layers.
///
/// By layer, page and key/value head. Floats: keys `[head_dim][64]`, values `[64][head_dim]`: a chain's steps are neighbours
/// of no thread, its neighbours are chains of other threads. INT8: keys `[64][row]` and values `[row][64]`, where a row is
/// head_dim rounded up to 16 bytes, and positions of values lie in the order in which a thread of a matrix product has their
/// weights.
pub struct PagedCache {
    shape: CacheShape,
    format: CacheFormat,
    keys: Buffer,
    values: Buffer,
    /// `[layers][pages][kv_heads][64]` with INT8 and a scale per token, else nothing.
    key_scales: Buffer,
    value_scales: Buffer,
}

/// Where a layer of the cache lies on the card.
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerPlace {
    pub keys: u64,
    pub values: u64,
    pub key_scales: u64,
    pub value_scales: u64,
    /// Static scales as they were given; 0 where there are none.
    pub key_scale: f32,
    pub value_scale: f32,
}

impl PagedCache {
    /// A zeroed cache.
    ///
    /// # Errors
    /// Sizes that overflow, static scales that do not match the layers, or not enough memory.
    pub fn new(gpu: &Gpu, shape: CacheShape, format: &CacheFormat) -> Result<Self, CudaError> {
        if let CacheFormat::Int8Static {
            key_scales,
            value_scales,
        } = format
        {
            check_scales("static key scales", shape.num_layers, key_scales.len())?;
            check_scales("static value scales", shape.num_layers, value_scales.len())?;
        }
        let heads = [shape.num_layers, shape.num_pages, shape.num_kv_heads, PAGE_TOKENS]
            .iter()
            .try_fold(1usize, |product, &size| product.checked_mul(size));
        let bytes = heads.and_then(|heads| heads.checked_mul(row_bytes(format, shape.head_dim)));
        let bytes = bytes.filter(|&bytes| bytes <= isize::MAX as usize / 4);
        let (Some(heads), Some(bytes)) = (heads, bytes) else {
            return Err(CudaError::TooLarge {
                what: "KV cache",
                got: shape.num_pages,
            });
        };
        let scale_bytes = if *format == CacheFormat::Int8 {
            4 * heads
        } else {
            0
        };
        Ok(Self {
            shape,
            format: format.clone(),
            keys: gpu.filled(bytes, 0)?,
            values: gpu.filled(bytes, 0)?,
            key_scales: gpu.filled(scale_bytes, 0)?,
            value_scales: gpu.filled(scale_bytes, 0)?,
        })
    }

    /// Its sizes.
    pub fn shape(&self) -> CacheShape {
        self.shape
    }

    /// What it keeps of keys and values.
    pub fn format(&self) -> &CacheFormat {
        &self.format
    }

    /// Bytes of the card's memory that it takes.
    pub fn bytes(&self) -> usize {
        let buffers = [&self.keys, &self.values, &self.key_scales, &self.value_scales];
        buffers.iter().map(|buffer| buffer.len_bytes()).sum()
    }

    /// # Panics
    /// When there is no such layer.
    pub(super) fn layer(&self, layer: usize) -> LayerPlace {
        let layers = self.shape.num_layers;
        assert!(layer < layers, "layer {layer} of a cache of {layers}");
        let at = |buffer: &Buffer| buffer.address() + (buffer.len_bytes() / layers * layer) as u64;
        let (key_scale, value_scale) = match &self.format {
            CacheFormat::Int8Static {
                key_scales,
                value_scales,
            } => (key_scales[layer], value_scales[layer]),
            _ => (0.0, 0.0),
        };
        LayerPlace {
            keys: at(&self.keys),
            values: at(&self.values),
            key_scales: at(&self.key_scales),
            value_scales: at(&self.value_scales),
            key_scale,
            value_scale,
        }
    }
}

/// Bytes of a token's head.
fn row_bytes(format: &CacheFormat, head_dim: usize) -> usize {
    match format {
        CacheFormat::F32 => 4 * head_dim,
        CacheFormat::F16 => 2 * head_dim,
        CacheFormat::Int8 | CacheFormat::Int8Static { .. } => head_dim.next_multiple_of(16),
    }
}

fn check_scales(what: &'static str, layers: usize, scales: usize) -> Result<(), CudaError> {
    match layers == scales {
        true => Ok(()),
        false => Err(CudaError::Length {
            what,
            expected: 4 * layers,
            got: 4 * scales,
        }),
    }
}

/// Whether the cache holds codes.
pub(super) fn is_int8(format: &CacheFormat) -> bool {
    matches!(format, CacheFormat::Int8 | CacheFormat::Int8Static { .. })
}
