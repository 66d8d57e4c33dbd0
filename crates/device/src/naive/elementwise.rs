//! Operations that only touch one element at a time: activations, additions, copies, maxima.

use dualgrain_format::FloatValues;

use super::{activation, gate, tanh};
use crate::Activation;

/// `out[c] = f(x[c]) * x[C + c]` for one row x of 2 C elements, by [`gate`].
pub fn gated(x: &[f32], f: Activation, out: &mut [f32]) {
    let (gates, ups) = x.split_at(x.len() / 2);
    for ((o, g), u) in out.iter_mut().zip(gates).zip(ups) {
        *o = gate(f, *g, *u);
    }
}

/// `x = f(x)`.
pub fn activate(x: &mut [f32], f: Activation) {
    for v in x {
        *v = activation(f, *v);
    }
}

/// `x = tanh(x * (1 / cap)) * cap`: about `x` where it is small, and never beyond `cap`.
#[inline(always)]
pub fn soft_cap(x: &mut [f32], cap: f32) {
    let inv_cap = 1.0 / cap;
    for v in x {
        *v = tanh(*v * inv_cap) * cap;
    }
}

/// The nearest bfloat16, ties to even, as f32: what is left of a product by 4-bit weights that is gated or added. Beyond the
/// largest one it is infinite; NaN stays NaN.
#[inline(always)]
pub fn to_bf16(v: f32) -> f32 {
    let bits = v.to_bits();
    let tie_to_even = 0x7fff + (bits >> 16 & 1);
    let rounded = f32::from_bits(bits.wrapping_add(tie_to_even) & 0xffff_0000);
    if v.is_nan() { v } else { rounded }
}

/// `x += y`.
pub fn add(x: &mut [f32], y: &[f32]) {
    for (v, w) in x.iter_mut().zip(y) {
        *v += w;
    }
}

/// Row `id` of a table `[entries, columns]`.
pub fn embed(table: &FloatValues, id: u32, out: &mut [f32]) {
    let start = id as usize * out.len();
    for (column, o) in out.iter_mut().enumerate() {
        *o = table.at(start + column);
    }
}

/// `out[i] = x[rows[i]]` for rows of `columns` elements.
pub fn gather(x: &[f32], columns: usize, rows: &[u32], out: &mut [f32]) {
    for (o, &row) in out.chunks_exact_mut(columns).zip(rows) {
        let start = row as usize * columns;
        o.copy_from_slice(&x[start..start + columns]);
    }
}

/// `maxima[j] = max(maxima[j], |x[j]|)` for one row.
pub fn abs_max(x: &[f32], maxima: &mut [f32]) {
    for (max, v) in maxima.iter_mut().zip(x) {
        *max = if v.abs() > *max { v.abs() } else { *max };
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    #[test]
    fn the_nearest_bfloat16_is_that_of_the_format() {
        let near = |bits: u32| [bits.wrapping_sub(1), bits, bits.wrapping_add(1)];
        // Ties, ends of the range, subnormal and infinite numbers; NaN with every kind of payload.
        let patterns =
            (0..=0xffffu32).flat_map(|high| near(high << 16 | 0x8000).into_iter().chain(near(high << 16)));
        for bits in patterns {
            let v = f32::from_bits(bits);
            let (got, expected) = (to_bf16(v), bf16::from_f32(v).to_f32());
            let same = got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan());
            assert!(same, "{bits:08x}: {got} instead of {expected}");
        }
    }
}
