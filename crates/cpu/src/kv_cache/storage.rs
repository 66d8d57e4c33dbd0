//! Paged keys and values.
//!
//! A page holds 64 tokens of one layer. Float keys lie transposed, `[kv_head][head_dim][64]`, so that a score tile loads 16
//! keys of one dimension as a vector; values lie `[kv_head][64][head_dim]`, so that an output tile loads 16 dimensions of
//! one token. INT8 keys lie `[kv_head][head_dim / 4][64][4]`, each byte code + 128, and values `[kv_head][16][head_dim][4]`,
//! four tokens side by side: the operands of dot products of four (`attention/int8`). All products then are
//! vertical: no horizontal sums, and one order of additions.

use bytemuck::Zeroable;
use dualgrain_device::{CacheFormat, CacheShape, DeviceError, PAGE_TOKENS};
use half::f16;

use super::element::{Stored, padded_dim};
use crate::memory::aligned::Aligned;

/// Paged keys and values of all layers.
#[derive(Debug)]
pub struct Cache {
    pub(crate) shape: CacheShape,
    pub(crate) store: Store,
    pub(crate) key_scales: Scales,
    pub(crate) value_scales: Scales,
}

/// Keys and values `[layer][page][kv_head]`, each head's page as above; head_dim is padded to a multiple of 16 in values and
/// of 4 in INT8 keys.
#[derive(Debug)]
pub(crate) enum Store {
    F32(Planes<f32>),
    F16(Planes<f16>),
    Int8(Planes<i8>),
}

#[derive(Debug)]
pub(crate) struct Planes<E> {
    pub(crate) keys: Aligned<E>,
    pub(crate) values: Aligned<E>,
}

#[derive(Debug)]
pub(crate) enum Scales {
    /// One for each layer; 1 for float caches.
    PerLayer(Vec<f32>),
    /// `[layer][page][kv_head][64]`
    PerToken(Vec<f32>),
}

impl Cache {
    pub(crate) fn new(device: &str, shape: CacheShape, format: &CacheFormat) -> Result<Self, DeviceError> {
        let sizes = Sizes::checked(device, shape)?;
        let layers = shape.num_layers;
        let ones = || Scales::PerLayer(vec![1.0; layers]);
        let per_token = || Scales::PerToken(vec![0.0; sizes.scales]);
        let (store, key_scales, value_scales) = match format {
            CacheFormat::F32 => (Store::F32(sizes.planes(device)?), ones(), ones()),
            CacheFormat::F16 => (Store::F16(sizes.planes(device)?), ones(), ones()),
            CacheFormat::Int8 => (Store::Int8(sizes.planes(device)?), per_token(), per_token()),
            CacheFormat::Int8Static {
                key_scales,
                value_scales,
            } => {
                let keys = static_scales((device, "static key scales"), key_scales, layers)?;
                let values = static_scales((device, "static value scales"), value_scales, layers)?;
                (Store::Int8(sizes.planes(device)?), keys, values)
            }
        };
        Ok(Self {
            shape,
            store,
            key_scales,
            value_scales,
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        let planes = match &self.store {
            Store::F32(p) => p.keys.bytes() + p.values.bytes(),
            Store::F16(p) => p.keys.bytes() + p.values.bytes(),
            Store::Int8(p) => p.keys.bytes() + p.values.bytes(),
        };
        planes + self.key_scales.bytes() + self.value_scales.bytes()
    }

    /// Index of (layer, page, kv_head) in units of one head's page.
    pub(crate) fn head_page(&self, layer: usize, page: usize, kv_head: usize) -> usize {
        (layer * self.shape.num_pages + page) * self.shape.num_kv_heads + kv_head
    }
}

impl Scales {
    /// The layer's scale for every slot of a page; 1 where tokens have their own.
    pub(crate) fn of_layer(&self, layer: usize) -> [f32; PAGE_TOKENS] {
        match self {
            Self::PerLayer(scales) => [scales[layer]; PAGE_TOKENS],
            Self::PerToken(_) => [1.0; PAGE_TOKENS],
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::PerLayer(scales) | Self::PerToken(scales) => 4 * scales.len(),
        }
    }
}

struct Sizes {
    head_dim: usize,
    values: usize,
    scales: usize,
}

impl Sizes {
    fn checked(device: &str, shape: CacheShape) -> Result<Self, DeviceError> {
        let too_large = || DeviceError::TooLarge {
            what: "KV cache",
            device: device.to_owned(),
            sizes: shape.to_string(),
        };
        let scales = [shape.num_pages, shape.num_kv_heads, PAGE_TOKENS]
            .into_iter()
            .try_fold(shape.num_layers, usize::checked_mul);
        let sizes = scales.and_then(|scales| {
            let values = scales.checked_mul(padded_dim(shape.head_dim))?;
            // Bytes of an f32 plane must fit an allocation.
            values
                .checked_mul(8)
                .filter(|&bytes| isize::try_from(bytes).is_ok())?;
            Some(Self {
                head_dim: shape.head_dim,
                values,
                scales,
            })
        });
        sizes.ok_or_else(too_large)
    }

    /// Planes of zeros; a page takes memory when it is first written.
    fn planes<E: Stored + Zeroable>(&self, device: &str) -> Result<Planes<E>, DeviceError> {
        let plane = |len: usize| {
            Aligned::zeroed(len).ok_or_else(|| DeviceError::OutOfMemory {
                what: "KV cache",
                device: device.to_owned(),
                size_bytes: len * size_of::<E>(),
            })
        };
        Ok(Planes {
            keys: plane(self.scales * E::key_dim(self.head_dim))?,
            values: plane(self.values)?,
        })
    }
}

fn static_scales(
    (device, what): (&str, &'static str),
    scales: &[f32],
    num_layers: usize,
) -> Result<Scales, DeviceError> {
    if scales.len() != num_layers {
        return Err(DeviceError::Length {
            what,
            device: device.to_owned(),
            expected: num_layers,
            got: scales.len(),
        });
    }
    Ok(Scales::PerLayer(scales.to_vec()))
}
