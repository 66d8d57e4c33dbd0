//! Attention of one query over the cached keys and values of one head.

use half::f16;

use super::quantize::{quantize_value, usable_scale};
use super::softmax_numerators;

/// Keys and values of one head, positions 0, 1, 2, ..., as the floats (or integer codes) the cache holds.
#[derive(Debug, Clone, Copy)]
pub struct CachedHead<'a> {
    /// `[positions, head_dim]`
    pub keys: &'a [f32],
    /// Scale of each key; 1 for float caches.
    pub key_scales: &'a [f32],
    /// `[positions, head_dim]`
    pub values: &'a [f32],
    /// Scale of each value; 1 for float caches.
    pub value_scales: &'a [f32],
}

/// `out = softmax(scores) * values` for the keys at `first..=last`, with
/// `score[j] = (q . key[j] * key_scale[j]) * scale + slope * j`.
///
/// Dot products accumulate over head_dim by fused multiply-adds; the output accumulates
/// `numerator[j] * value_scale[j]` times `value[j]` over j in order and is multiplied by `1 / sum` at the end.
pub fn attention(
    q: &[f32],
    head: CachedHead<'_>,
    (first, last): (usize, usize),
    scale: f32,
    slope: Option<f32>,
    out: &mut [f32],
) {
    let dim = q.len();
    let mut scores: Vec<f32> = (first..=last)
        .map(|j| {
            let key = &head.keys[j * dim..(j + 1) * dim];
            let dot = q.iter().zip(key).fold(0.0f32, |acc, (q, k)| q.mul_add(*k, acc));
            let score = (dot * head.key_scales[j]) * scale;
            slope.map_or(score, |slope| score + slope * j as f32)
        })
        .collect();
    let inv_sum = 1.0 / softmax_numerators(&mut scores, first);
    out.fill(0.0);
    for (j, numerator) in (first..=last).zip(scores) {
        let weight = numerator * head.value_scales[j];
        for (o, v) in out.iter_mut().zip(&head.values[j * dim..(j + 1) * dim]) {
            *o = weight.mul_add(*v, *o);
        }
    }
    for o in out {
        *o *= inv_sum;
    }
}

/// The half-precision float a cache keeps: nearest, saturating at the largest finite one.
#[inline(always)]
pub fn to_f16(v: f32) -> f16 {
    let max = f16::MAX.to_f32();
    f16::from_f32(v.clamp(-max, max))
}

/// INT8 codes of one head and their scale: `static_scale`, or `absmax / 127` when there is none.
pub fn to_int8(head: &[f32], static_scale: Option<f32>, codes: &mut [i8]) -> f32 {
    let absmax = || {
        head.iter()
            .fold(0.0, |max, &v: &f32| if v.abs() > max { v.abs() } else { max })
    };
    let (scale, inv_scale) = usable_scale(static_scale.unwrap_or_else(|| absmax() / 127.0));
    for (code, v) in codes.iter_mut().zip(head) {
        *code = quantize_value(*v, inv_scale);
    }
    scale
}
