//! Paged keys and values.
//!
//! A page holds 64 tokens of one layer. Float keys lie transposed, `[kv_head][head_dim][64]`, so that a score tile loads 16
//! keys of one dimension as a vector; values lie `[kv_head][64][head_dim]`, so that an output tile loads 16 dimensions of
//! one token. INT8 keys lie `[kv_head][head_dim / 4][64][4]`, each byte code + 128, and values `[kv_head][16][head_dim][4]`,
//! four tokens side by side: the operands of dot products of four (`attention_int8_tile.rs`). All products then are
//! vertical: no horizontal sums, and one order of additions.

use bytemuck::{Zeroable, cast};
use half::f16;

use crate::float::lanes::LANES;
use crate::isa::{Isa, per_isa};
use crate::memory::aligned::Aligned;
use crate::rows::quantize::round_to_int8;
use crate::rows::reduce::abs_max;
use crate::tensor::matrix::Matrix;
use dualgrain_device::naive::usable_scale;
use dualgrain_device::{CacheFormat, CacheShape, Columns, DeviceError, MAX_HEAD_DIM, PAGE_TOKENS, Step};
use dualgrain_threads::Pool;
use dualgrain_threads::SharedSlice;

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
    pub(crate) fn new(shape: CacheShape, format: &CacheFormat) -> Result<Self, DeviceError> {
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

/// Codes that a lane of an integer product multiplies at once.
pub(crate) const QUAD: usize = 4;

/// Elements of a head's row of values: whole vectors.
pub(crate) fn padded_dim(head_dim: usize) -> usize {
    head_dim.next_multiple_of(LANES)
}

struct Sizes {
    head_dim: usize,
    values: usize,
    scales: usize,
}

impl Sizes {
    fn checked(shape: CacheShape) -> Result<Self, DeviceError> {
        let too_large = DeviceError::TooLarge {
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
                head_dim: shape.head_dim,
                values,
                scales,
            })
        });
        sizes.ok_or(too_large)
    }

    /// Planes of zeros; a page takes memory when it is first written.
    fn planes<E: Stored + Zeroable>(&self) -> Result<Planes<E>, DeviceError> {
        let plane = |len: usize| {
            Aligned::zeroed(len).ok_or(DeviceError::OutOfMemory {
                what: "KV cache",
                size_bytes: len * size_of::<E>(),
            })
        };
        Ok(Planes {
            keys: plane(self.scales * E::key_dim(self.head_dim))?,
            values: plane(self.values)?,
        })
    }
}

fn static_scales(what: &'static str, scales: &[f32], num_layers: usize) -> Result<Scales, DeviceError> {
    if scales.len() != num_layers {
        return Err(DeviceError::Length {
            what,
            expected: num_layers,
            got: scales.len(),
        });
    }
    Ok(Scales::PerLayer(scales.to_vec()))
}

/// An element type a cache row can be written as.
pub(crate) trait Stored: Copy + Default + Send + Sync + 'static {
    /// Converts one head; returns its scale.
    fn convert(isa: Isa, head: &[f32], static_scale: Option<f32>, out: &mut [Self]) -> f32;

    /// Elements of a key in a head's page.
    fn key_dim(head_dim: usize) -> usize {
        head_dim
    }

    /// Writes a key into slot `slot` of a head's page.
    fn put_key(_: Isa, page: &mut [Self], slot: usize, key: &[Self]) {
        for (line, v) in page.chunks_exact_mut(PAGE_TOKENS).zip(key) {
            line[slot] = *v;
        }
    }

    /// Writes a value into slot `slot` of a head's page.
    fn put_value(_: Isa, page: &mut [Self], slot: usize, value: &[Self]) {
        page[slot * padded_dim(value.len())..][..value.len()].copy_from_slice(value);
    }
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

    fn key_dim(head_dim: usize) -> usize {
        head_dim.next_multiple_of(QUAD)
    }

    fn put_key(_: Isa, page: &mut [Self], slot: usize, key: &[Self]) {
        let mut lines = page.as_chunks_mut::<QUAD>().0.chunks_exact_mut(PAGE_TOKENS);
        let (quads, rest) = key.as_chunks::<QUAD>();
        // Code + 128 as an unsigned byte, four at once.
        let stored = |quad: [i8; QUAD]| cast(cast::<_, u32>(quad) ^ 0x8080_8080);
        for (quad, line) in quads.iter().zip(lines.by_ref()) {
            line[slot] = stored(*quad);
        }
        if let Some(line) = lines.next() {
            let mut last = [0; QUAD];
            last[..rest.len()].copy_from_slice(rest);
            line[slot] = stored(last);
        }
    }

    fn put_value(isa: Isa, page: &mut [Self], slot: usize, value: &[Self]) {
        let line = page.as_chunks_mut::<QUAD>().0;
        let start = slot / QUAD * padded_dim(value.len());
        set_bytes(isa, &mut line[start..][..value.len()], slot % QUAD, value);
    }
}

per_isa! {
    /// Sets byte `place` of every four, whole words at a time: a store for each byte fills the store buffer.
    fn set_bytes(quads: &mut [[i8; QUAD]], place: usize, values: &[i8]) = set_bytes_lanes
}

#[inline(always)]
fn set_bytes_lanes(quads: &mut [[i8; QUAD]], place: usize, values: &[i8]) {
    let shift = 8 * place as u32;
    let others = !(0xff << shift);
    for (quad, value) in quads.iter_mut().zip(values) {
        let word = u32::from_le(cast(*quad));
        *quad = cast((word & others | u32::from(*value as u8) << shift).to_le());
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
    /// INT8 codes of one head; returns their scale.
    pub(crate) fn to_int8(head: &[f32], static_scale: Option<f32>, codes: &mut [i8]) -> f32 = to_int8_lanes
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
        let (keys, values) = (
            SharedSlice::new(&mut planes.keys),
            SharedSlice::new(&mut planes.values),
        );
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
                    let len = E::key_dim(dim) * PAGE_TOKENS;
                    // SAFETY: this task alone writes this head.
                    let page = unsafe { keys.range(head_page * len..(head_page + 1) * len) };
                    E::put_key(self.isa, page, slot, codes);

                    let scale = E::convert(self.isa, head(&self.values), value_scales.fixed, codes);
                    value_scales.set(head_page * PAGE_TOKENS + slot, scale);
                    let len = padded_dim(dim) * PAGE_TOKENS;
                    // SAFETY: as above.
                    let page = unsafe { values.range(head_page * len..(head_page + 1) * len) };
                    E::put_value(self.isa, page, slot, codes);
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
    stored: Option<SharedSlice<'a, f32>>,
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
                stored: Some(SharedSlice::new(scales)),
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
                let (got, expected) = (f16_bits(v), dualgrain_device::naive::to_f16(v));
                assert!(
                    expected.is_nan() && got & 0x7e00 == 0x7e00 || got == expected.to_bits(),
                    "{v:e}"
                );
            }
        }
    }
}
