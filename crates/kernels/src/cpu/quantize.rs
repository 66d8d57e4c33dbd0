//! Float rows to INT8, with the sums of every 32 codes on the way.

use super::isa::per_isa;
use super::tensor::SUM_BLOCK;
use crate::ActivationScale;
use crate::naive::LANES;

/// 1.5 * 2^23: adding it leaves round-to-nearest-even in the low mantissa bits.
const ROUND_MAGIC: f32 = 12_582_912.0;

per_isa! {
    /// Codes, scale and block sums of one row. `quads` begins with the row's first four codes; its next ones follow
    /// every `stride` elements.
    pub(super) fn quantize(
        x: &[f32],
        scale: ActivationScale,
        quads: &mut [[i8; 4]],
        stride: usize,
        block_sums: &mut [i32],
    ) -> f32 = quantize_row
}

#[inline(always)]
fn quantize_row(
    x: &[f32],
    scale: ActivationScale,
    quads: &mut [[i8; 4]],
    stride: usize,
    block_sums: &mut [i32],
) -> f32 {
    let ta = match scale {
        ActivationScale::PerToken => abs_max(x) / 127.0,
        ActivationScale::Static(ta) => ta,
    };
    let (ta, inv_scale) = crate::naive::usable_scale(ta);
    let mut place = 0;
    for (x, sum) in x.chunks(SUM_BLOCK).zip(block_sums) {
        let mut codes = [0; SUM_BLOCK];
        *sum = match x.as_array::<SUM_BLOCK>() {
            Some(x) => quantize_values(x, inv_scale, &mut codes),
            None => quantize_values(x, inv_scale, &mut codes),
        };
        for quad in codes.as_chunks::<4>().0 {
            quads[place] = *quad;
            place += stride;
        }
    }
    ta
}

#[inline(always)]
fn quantize_values(x: &[f32], inv_scale: f32, codes: &mut [i8; SUM_BLOCK]) -> i32 {
    let mut sum = 0;
    for (code, v) in codes.iter_mut().zip(x) {
        let value = round_to_int8(*v * inv_scale);
        *code = value as i8;
        sum += value;
    }
    sum
}

/// `round_ties_even(v).clamp(-127, 127)` and 0 for NaN, in operations every instruction set has as vectors.
#[inline(always)]
pub(super) fn round_to_int8(v: f32) -> i32 {
    let v = if v > -127.0 {
        v
    } else if v <= -127.0 {
        -127.0
    } else {
        0.0
    };
    let v = if v < 127.0 { v } else { 127.0 };
    ((v + ROUND_MAGIC).to_bits() as i32) - (ROUND_MAGIC.to_bits() as i32)
}

#[inline(always)]
pub(super) fn abs_max(x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            let v = chunk[lane].abs();
            lanes[lane] = if v > lanes[lane] { v } else { lanes[lane] };
        }
    }
    for (lane, v) in lanes.iter_mut().zip(rest) {
        *lane = if v.abs() > *lane { v.abs() } else { *lane };
    }
    max_lanes(lanes)
}

/// The largest of 16 lanes, pairwise.
#[inline(always)]
pub(super) fn max_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = if lanes[lane + half] > lanes[lane] {
                lanes[lane + half]
            } else {
                lanes[lane]
            };
        }
        half /= 2;
    }
    lanes[0]
}
