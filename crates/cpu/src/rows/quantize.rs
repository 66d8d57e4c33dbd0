//! Float rows to INT8, with the sums of every 32 codes on the way.

use std::ops::Range;
use std::sync::atomic::{Ordering, compiler_fence};

use dualgrain_device::ActivationScale;
use dualgrain_device::naive::LANES;

use super::reduce::max_lanes;
use crate::isa::per_isa;
use crate::tensor::quantized::{Layout, SUM_BLOCK};

/// Groups of four codes in a block.
const BLOCK_QUADS: usize = SUM_BLOCK / 4;

/// 1.5 * 2^23: adding it leaves round-to-nearest-even in the low mantissa bits.
pub(crate) const ROUND_MAGIC: f32 = 12_582_912.0;

per_isa! {
    /// Codes and block sums of one row to `place`; the scale.
    pub(crate) fn quantize(x: &[f32], scale: ActivationScale, place: Place<'_>) -> f32 = quantize_row
}

/// Where the codes of a row go, and their sums.
pub(crate) struct Place<'a> {
    /// Begins with the row's first four codes; `layout` says where the others go.
    pub(crate) quads: &'a mut [[i8; 4]],
    pub(crate) layout: Layout,
    pub(crate) block_sums: &'a mut [i32],
}

/// A row that is read twice: of floats that lie there, or computed from what the first-level cache holds.
pub(crate) trait Row: Copy {
    fn len(self) -> usize;
    fn slice(self, range: Range<usize>) -> Self;
    fn at(self, index: usize) -> f32;
}

impl Row for &[f32] {
    #[inline(always)]
    fn len(self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn slice(self, range: Range<usize>) -> Self {
        &self[range]
    }

    #[inline(always)]
    fn at(self, index: usize) -> f32 {
        self[index]
    }
}

#[inline(always)]
pub(crate) fn quantize_row(row: impl Row, scale: ActivationScale, place: Place<'_>) -> f32 {
    let ta = match scale {
        ActivationScale::PerToken => row_abs_max(row) / 127.0,
        ActivationScale::Static(ta) => ta,
    };
    let (ta, inv_scale) = dualgrain_device::naive::usable_scale(ta);
    let Place {
        quads,
        layout,
        block_sums,
    } = place;
    let len = row.len();
    for (block, sum) in block_sums.iter_mut().enumerate() {
        let mut codes = [0; SUM_BLOCK];
        let first = block * SUM_BLOCK;
        *sum = match first + SUM_BLOCK <= len {
            // The compiler counts to 32 here.
            true => quantize_values(row.slice(first..first + SUM_BLOCK), inv_scale, &mut codes),
            false => quantize_values(row.slice(first..len), inv_scale, &mut codes),
        };
        write_block(&codes, &mut quads[layout.quad(block * BLOCK_QUADS)..], layout);
    }
    for quad in len.div_ceil(SUM_BLOCK) * BLOCK_QUADS..layout.row_quads {
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
fn quantize_values(row: impl Row, inv_scale: f32, codes: &mut [i8; SUM_BLOCK]) -> i32 {
    let mut sum = 0;
    for (index, code) in codes.iter_mut().enumerate().take(row.len()) {
        let value = round_to_int8(row.at(index) * inv_scale);
        *code = value as i8;
        sum += value;
    }
    sum
}

/// `round_ties_even(v).clamp(-127, 127)` and 0 for NaN, in operations every instruction set has as vectors.
#[inline(always)]
pub(crate) fn round_to_int8(v: f32) -> i32 {
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

/// Of a row of a model: a maximum has no order, so this waits for four of the last ones at a time.
#[inline(always)]
fn row_abs_max(row: impl Row) -> f32 {
    const RUN: usize = 4 * LANES;
    let mut maxima = [0.0f32; RUN];
    let whole = row.len() / RUN * RUN;
    for first in (0..whole).step_by(RUN) {
        raise(&mut maxima, row.slice(first..first + RUN));
    }
    raise(&mut maxima, row.slice(whole..row.len()));
    let mut lanes = [0.0f32; LANES];
    for maxima in maxima.as_chunks::<LANES>().0 {
        raise(&mut lanes, &maxima[..]);
    }
    max_lanes(lanes)
}

/// `maxima[j] = max(maxima[j], |row[j]|)`; NaN counts for nothing.
#[inline(always)]
fn raise<const N: usize>(maxima: &mut [f32; N], row: impl Row) {
    for (index, max) in maxima.iter_mut().enumerate().take(row.len()) {
        let v = row.at(index).abs();
        *max = if v > *max { v } else { *max };
    }
}
