//! Float rows to INT8, with the sums of every 32 codes on the way.

use std::sync::atomic::{Ordering, compiler_fence};

use super::isa::per_isa;
use super::tensor::{Layout, SUM_BLOCK};
use crate::ActivationScale;
use crate::naive::LANES;

/// Groups of four codes in a block.
const BLOCK_QUADS: usize = SUM_BLOCK / 4;

/// 1.5 * 2^23: adding it leaves round-to-nearest-even in the low mantissa bits.
pub(super) const ROUND_MAGIC: f32 = 12_582_912.0;

per_isa! {
    /// Codes, scale and block sums of one row. `quads` begins with the row's first four codes; `layout` says where the
    /// others go.
    pub(super) fn quantize(
        x: &[f32],
        scale: ActivationScale,
        quads: &mut [[i8; 4]],
        layout: Layout,
        block_sums: &mut [i32],
    ) -> f32 = quantize_row
}

#[inline(always)]
fn quantize_row(
    x: &[f32],
    scale: ActivationScale,
    quads: &mut [[i8; 4]],
    layout: Layout,
    block_sums: &mut [i32],
) -> f32 {
    let ta = match scale {
        ActivationScale::PerToken => abs_max(x) / 127.0,
        ActivationScale::Static(ta) => ta,
    };
    let (ta, inv_scale) = crate::naive::usable_scale(ta);
    let blocks = x.chunks(SUM_BLOCK).zip(block_sums);
    for ((x, sum), first) in blocks.zip((0..).step_by(BLOCK_QUADS)) {
        let mut codes = [0; SUM_BLOCK];
        *sum = match x.as_array::<SUM_BLOCK>() {
            Some(x) => quantize_values(x, inv_scale, &mut codes),
            None => quantize_values(x, inv_scale, &mut codes),
        };
        write_block(&codes, &mut quads[layout.quad(first)..], layout);
    }
    for quad in x.len().div_ceil(SUM_BLOCK) * BLOCK_QUADS..layout.row_quads {
        quads[layout.quad(quad)] = [0; 4];
    }
    ta
}

/// Eight quads; a block never crosses a chunk of the layout.
#[inline(always)]
fn write_block(codes: &[i8; SUM_BLOCK], quads: &mut [[i8; 4]], layout: Layout) {
    if layout.is_contiguous() {
        let quads = quads[..BLOCK_QUADS].as_flattened_mut();
        quads[..LANES].copy_from_slice(&codes[..LANES]);
        // One copy of both halves would wait for the two stores that made them: with AVX-512 a row took 1.3 times as long.
        compiler_fence(Ordering::SeqCst);
        return quads[LANES..].copy_from_slice(&codes[LANES..]);
    }
    let codes = codes.as_chunks::<4>().0;
    for (index, quad) in codes.iter().enumerate() {
        quads[layout.quad(index)] = *quad;
    }
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
