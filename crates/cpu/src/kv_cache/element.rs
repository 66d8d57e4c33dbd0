//! What keys and values are stored as, and where an element of a page lies.

use bytemuck::cast;
use dualgrain_device::PAGE_TOKENS;
use dualgrain_device::naive::usable_scale;
use half::f16;

use crate::float::lanes::LANES;
use crate::isa::{Isa, per_isa};
use crate::rows::quantize::round_to_int8;
use crate::rows::reduce::abs_max;

/// Codes that a lane of an integer product multiplies at once.
pub(crate) const QUAD: usize = 4;

/// Elements of a head's row of values: whole vectors.
pub(crate) fn padded_dim(head_dim: usize) -> usize {
    head_dim.next_multiple_of(LANES)
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
