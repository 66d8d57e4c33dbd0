//! Paged keys and values.
//!
//! A page holds 64 tokens of one layer. Keys lie transposed, `[kv_head][head_dim][64]`, so that a score tile loads 16 keys
//! of one dimension as a vector; values lie `[kv_head][64][head_dim]`, so that an output tile loads 16 dimensions of
//! one token. Both products then are vertical (see `tile.rs`): no horizontal sums, and one order of additions.

use bytemuck::Zeroable;
use half::f16;

use super::aligned::Aligned;
use super::isa::{Isa, per_isa};
use super::pool::Pool;
use super::quantize::{abs_max, round_to_int8};
use super::share::Shared;
use super::simd::{Element, LANES};
use super::tensor::Matrix;
use crate::naive::usable_scale;
use crate::{CacheFormat, CacheShape, Columns, KernelError, MAX_HEAD_DIM, PAGE_TOKENS, Step};

/// Paged keys and values of all layers.
#[derive(Debug)]
pub struct Cache {
    pub(super) shape: CacheShape,
    pub(super) store: Store,
    pub(super) key_scales: Scales,
    pub(super) value_scales: Scales,
}

/// Keys `[layer][page][kv_head][head_dim][64]` and values `[layer][page][kv_head][64][padded head_dim]`.
#[derive(Debug)]
pub(super) enum Store {
    F32(Planes<f32>),
    F16(Planes<f16>),
    Int8(Planes<i8>),
}

#[derive(Debug)]
pub(super) struct Planes<E> {
    pub(super) keys: Aligned<E>,
    pub(super) values: Aligned<E>,
}

#[derive(Debug)]
pub(super) enum Scales {
    /// One for each layer; 1 for float caches.
    PerLayer(Vec<f32>),
    /// `[layer][page][kv_head][64]`
    PerToken(Vec<f32>),
}

impl Cache {
    pub(crate) fn new(shape: CacheShape, format: &CacheFormat) -> Result<Self, KernelError> {
        let sizes = Sizes::checked(shape)?;
        let layers = shape.num_layers;
        let ones = || Scales::PerLayer(vec![1.0; layers]);
        let per_token = || Scales::PerToken(vec![0.0; sizes.scales]);
        let (store, key_scales, value_scales) = match format {
            CacheFormat::F32 => (Store::F32(sizes.planes()?), ones(), ones()),
            CacheFormat::F16 => (Store::F16(sizes.planes()?), ones(), ones()),
            CacheFormat::Int8 => (Store::Int8(sizes.planes()?), per_token(), per_token()),
            CacheFormat::Int8Static {
                key_scales,
                value_scales,
            } => {
                let keys = static_scales("static key scales", key_scales, layers)?;
                let values = static_scales("static value scales", value_scales, layers)?;
                (Store::Int8(sizes.planes()?), keys, values)
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
    pub(super) fn head_page(&self, layer: usize, page: usize, kv_head: usize) -> usize {
        (layer * self.shape.num_pages + page) * self.shape.num_kv_heads + kv_head
    }
}

impl Scales {
    /// The layer's scale for every slot of a page; 1 where tokens have their own.
    pub(super) fn of_layer(&self, layer: usize) -> [f32; PAGE_TOKENS] {
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

/// Elements of a head's row of values: whole vectors.
pub(super) fn padded_dim(head_dim: usize) -> usize {
    head_dim.next_multiple_of(LANES)
}

struct Sizes {
    keys: usize,
    values: usize,
    scales: usize,
}

impl Sizes {
    fn checked(shape: CacheShape) -> Result<Self, KernelError> {
        let too_large = KernelError::TooLarge {
            what: "KV cache",
            got: shape.num_pages,
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
                keys: scales * shape.head_dim,
                values,
                scales,
            })
        });
        sizes.ok_or(too_large)
    }

    /// Planes of zeros; a page takes memory when it is first written.
    fn planes<E: Zeroable>(&self) -> Result<Planes<E>, KernelError> {
        let plane = |len: usize| {
            Aligned::zeroed(len).ok_or(KernelError::OutOfMemory {
                what: "KV cache",
                size_bytes: len * size_of::<E>(),
            })
        };
        Ok(Planes {
            keys: plane(self.keys)?,
            values: plane(self.values)?,
        })
    }
}

fn static_scales(what: &'static str, scales: &[f32], num_layers: usize) -> Result<Scales, KernelError> {
    if scales.len() != num_layers {
        return Err(KernelError::Length {
            what,
            expected: num_layers,
            got: scales.len(),
        });
    }
    Ok(Scales::PerLayer(scales.to_vec()))
}

/// An element type a cache row can be written as.
pub(super) trait Stored: Element + Default {
    /// Converts one head; returns its scale.
    fn convert(isa: Isa, head: &[f32], static_scale: Option<f32>, out: &mut [Self]) -> f32;
}

impl Stored for f32 {
    fn convert(_: Isa, head: &[f32], _: Option<f32>, out: &mut [Self]) -> f32 {
        out.copy_from_slice(head);
        1.0
    }
}

impl Stored for f16 {
    fn convert(isa: Isa, head: &[f32], _: Option<f32>, out: &mut [Self]) -> f32 {
        to_f16(isa, head, out);
        1.0
    }
}

impl Stored for i8 {
    fn convert(isa: Isa, head: &[f32], static_scale: Option<f32>, out: &mut [Self]) -> f32 {
        to_int8(isa, head, static_scale, out)
    }
}

per_isa! {
    /// Nearest half-precision floats, saturating; the operations of `naive::to_f16` on integers, which vectorize.
    fn to_f16(head: &[f32], out: &mut [f16]) = to_f16_lanes
}

#[inline(always)]
fn to_f16_lanes(head: &[f32], out: &mut [f16]) {
    for (o, v) in out.iter_mut().zip(head) {
        *o = f16::from_bits(f16_bits(*v));
    }
}

#[inline(always)]
fn f16_bits(v: f32) -> u16 {
    let sign = (v.to_bits() >> 16) & 0x8000;
    let a = v.abs();
    let a = if a > 65_504.0 { 65_504.0 } else { a };
    // Normal: add half of the last place (a little less for even mantissas), shift, move the exponent's bias.
    let even = (a.to_bits() >> 13) & 1;
    let normal = a
        .to_bits()
        .wrapping_sub((127 - 15) << 23)
        .wrapping_add(0xfff + even)
        >> 13;
    // Subnormal: adding 0.5 rounds at 2^-24.
    let subnormal = (a + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let bits = if a < 6.103_515_6e-5 { subnormal } else { normal };
    let bits = if v.is_nan() { 0x7e00 } else { bits };
    (sign | bits) as u16
}

per_isa! {
    fn to_int8(head: &[f32], static_scale: Option<f32>, codes: &mut [i8]) -> f32 = to_int8_lanes
}

#[inline(always)]
fn to_int8_lanes(head: &[f32], static_scale: Option<f32>, codes: &mut [i8]) -> f32 {
    let (scale, inv_scale) = usable_scale(static_scale.unwrap_or_else(|| abs_max(head) / 127.0));
    for (code, v) in codes.iter_mut().zip(head) {
        *code = round_to_int8(*v * inv_scale) as i8;
    }
    scale
}

/// Writes the keys and values of a step into `layer`.
pub(crate) fn write(
    (isa, pool): (Isa, &Pool),
    cache: &mut Cache,
    layer: usize,
    x: &Matrix,
    columns: (Columns, Columns),
    step: &Step<'_>,
) {
    let Cache {
        shape,
        store,
        key_scales,
        value_scales,
    } = cache;
    let place = Place {
        isa,
        pool,
        shape: *shape,
        layer,
        x,
        keys: columns.0,
        values: columns.1,
        step,
    };
    match store {
        Store::F32(planes) => place.write(planes, key_scales, value_scales),
        Store::F16(planes) => place.write(planes, key_scales, value_scales),
        Store::Int8(planes) => place.write(planes, key_scales, value_scales),
    }
}

struct Place<'a> {
    isa: Isa,
    pool: &'a Pool,
    shape: CacheShape,
    layer: usize,
    x: &'a Matrix,
    keys: Columns,
    values: Columns,
    step: &'a Step<'a>,
}

impl Place<'_> {
    fn write<E: Stored>(&self, planes: &mut Planes<E>, key_scales: &mut Scales, value_scales: &mut Scales) {
        let dim = self.shape.head_dim;
        assert!(dim <= MAX_HEAD_DIM, "head_dim {dim} above {MAX_HEAD_DIM}");
        let width = self.shape.num_kv_heads * dim;
        assert_eq!(
            (self.keys.len(), self.values.len()),
            (width, width),
            "key and value columns"
        );
        let (keys, values) = (Shared::new(&mut planes.keys), Shared::new(&mut planes.values));
        let (key_scales, value_scales) = (
            ScaleSink::new(key_scales, self.layer),
            ScaleSink::new(value_scales, self.layer),
        );
        // A task owns one kv head of every page, so no two write the same block.
        let operations = 16 * self.x.rows * width;
        self.pool
            .run_if_worth(operations, self.shape.num_kv_heads, |kv_head| {
                let mut codes = [E::default(); MAX_HEAD_DIM];
                let codes = &mut codes[..dim];
                for token in 0..self.x.rows {
                    let (head_page, slot) = self.slot(token, kv_head);
                    let row = self.x.row(token);
                    let head = |columns: &Columns| &row[columns.start + kv_head * dim..][..dim];

                    let scale = E::convert(self.isa, head(&self.keys), key_scales.fixed, codes);
                    key_scales.set(head_page * PAGE_TOKENS + slot, scale);
                    let block = head_page * dim * PAGE_TOKENS;
                    // SAFETY: this task alone writes this head.
                    let block = unsafe { keys.range(block..block + dim * PAGE_TOKENS) };
                    for (line, code) in block.chunks_exact_mut(PAGE_TOKENS).zip(&*codes) {
                        line[slot] = *code;
                    }

                    let scale = E::convert(self.isa, head(&self.values), value_scales.fixed, codes);
                    value_scales.set(head_page * PAGE_TOKENS + slot, scale);
                    let start = (head_page * PAGE_TOKENS + slot) * padded_dim(dim);
                    // SAFETY: as above.
                    unsafe { values.range(start..start + dim) }.copy_from_slice(codes);
                }
            });
    }

    /// Where a token's head goes: the head's page and the slot in it.
    fn slot(&self, token: usize, kv_head: usize) -> (usize, usize) {
        let position = self.step.positions[token] as usize;
        let table = &self.step.page_tables[self.step.sequences[token] as usize];
        let page = table[position / PAGE_TOKENS] as usize;
        assert!(
            page < self.shape.num_pages,
            "page {page} of {}",
            self.shape.num_pages
        );
        let head_page = (self.layer * self.shape.num_pages + page) * self.shape.num_kv_heads + kv_head;
        (head_page, position % PAGE_TOKENS)
    }
}

/// Where scales go: nowhere when they are fixed.
struct ScaleSink<'a> {
    fixed: Option<f32>,
    stored: Option<Shared<'a, f32>>,
}

impl<'a> ScaleSink<'a> {
    fn new(scales: &'a mut Scales, layer: usize) -> Self {
        match scales {
            Scales::PerLayer(scales) => Self {
                fixed: Some(scales[layer]),
                stored: None,
            },
            Scales::PerToken(scales) => Self {
                fixed: None,
                stored: Some(Shared::new(scales)),
            },
        }
    }

    fn set(&self, index: usize, scale: f32) {
        if let Some(stored) = &self.stored {
            // SAFETY: the index belongs to a kv head that one task alone writes.
            unsafe { stored.range(index..index + 1)[0] = scale };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_rounds_as_the_specification_does() {
        // Every exponent with mantissas around each kind of tie, both signs.
        for high in 0..=u16::MAX {
            for low in [
                0, 1, 0xfff, 0x1000, 0x1001, 0x1fff, 0x3000, 0x8000, 0xf000, 0xffff,
            ] {
                let v = f32::from_bits(u32::from(high) << 16 | low);
                let (got, expected) = (f16_bits(v), crate::naive::to_f16(v));
                assert!(
                    expected.is_nan() && got & 0x7e00 == 0x7e00 || got == expected.to_bits(),
                    "{v:e}"
                );
            }
        }
    }
}
