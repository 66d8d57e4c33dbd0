//! Attention of one query over the cached keys and values of one head.

use half::f16;

use super::quantize::{quantize_value, usable_scale};
use super::softmax_numerators;
use crate::PAGE_TOKENS;

/// Keys and values of one head, positions 0, 1, 2, ..., as the floats the cache holds.
#[derive(Debug, Clone, Copy)]
pub struct CachedHead<'a> {
    /// `[positions, head_dim]`
    pub keys: &'a [f32],
    /// `[positions, head_dim]`
    pub values: &'a [f32],
}

/// Keys and values of one head as INT8 codes, positions 0, 1, 2, ...
#[derive(Debug, Clone, Copy)]
pub struct CachedHeadInt8<'a> {
    /// `[positions, head_dim]`
    pub keys: &'a [i8],
    /// Scale of each key.
    pub key_scales: &'a [f32],
    /// `[positions, head_dim]`
    pub values: &'a [i8],
    /// Scale of each value.
    pub value_scales: &'a [f32],
}

/// `out = softmax(scores) * values` for the keys at `first..=last`, with
/// `score[j] = (q . key[j]) * scale + slope * j`.
///
/// Dot products accumulate over head_dim by fused multiply-adds; the output accumulates
/// `numerator[j]` times `value[j]` over j in order and is multiplied by `1 / sum` at the end.
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
            let score = dot * scale;
            slope.map_or(score, |slope| score + slope * j as f32)
        })
        .collect();
    let inv_sum = 1.0 / softmax_numerators(&mut scores, first);
    out.fill(0.0);
    for (j, weight) in (first..=last).zip(scores) {
        for (o, v) in out.iter_mut().zip(&head.values[j * dim..(j + 1) * dim]) {
            *o = weight.mul_add(*v, *o);
        }
    }
    for o in out {
        *o *= inv_sum;
    }
}

/// The same over INT8 codes, with integer products.
///
/// The query becomes codes with `tq = absmax / 127`, as activations do, and
/// `score[j] = (((acc as f32 * tq) * key_scale[j]) * scale) + slope * j`, nothing fused. For each page of 64 positions in
/// order the weights `numerator[j] * value_scale[j]` become codes 0..=127 with the scale `max / 127`, ties to even, and
/// `out = fma(acc as f32, scale, out)`; a page whose scale is 0 adds nothing. `1 / sum` is that of the numerators
/// before they became codes.
pub fn attention_int8(
    q: &[f32],
    head: CachedHeadInt8<'_>,
    (first, last): (usize, usize),
    scale: f32,
    slope: Option<f32>,
    out: &mut [f32],
) {
    let dim = q.len();
    let mut query = vec![0; dim];
    let tq = to_int8(q, None, &mut query);
    let mut numerators: Vec<f32> = (first..=last)
        .map(|j| {
            let key = &head.keys[j * dim..(j + 1) * dim];
            let products = query.iter().zip(key).map(|(q, k)| i32::from(*q) * i32::from(*k));
            let score = ((products.sum::<i32>() as f32 * tq) * head.key_scales[j]) * scale;
            slope.map_or(score, |slope| score + slope * j as f32)
        })
        .collect();
    let inv_sum = 1.0 / softmax_numerators(&mut numerators, first);
    out.fill(0.0);
    for page in (first / PAGE_TOKENS..=last / PAGE_TOKENS).map(|page| page * PAGE_TOKENS) {
        let positions = first.max(page)..=last.min(page + PAGE_TOKENS - 1);
        add_page(&numerators, first, positions, head, out);
    }
    for o in out {
        *o *= inv_sum;
    }
}

/// Adds the values at `positions`; the first numerator is that of position `first`.
fn add_page(
    numerators: &[f32],
    first: usize,
    positions: std::ops::RangeInclusive<usize>,
    head: CachedHeadInt8<'_>,
    out: &mut [f32],
) {
    let weight = |j: usize| numerators[j - first] * head.value_scales[j];
    let max = positions
        .clone()
        .map(weight)
        .fold(0.0, |max, v| if v > max { v } else { max });
    let (scale, inv_scale) = usable_scale(max / 127.0);
    if scale == 0.0 {
        return;
    }
    let dim = out.len();
    for (d, o) in out.iter_mut().enumerate() {
        let product = |j: usize| {
            let code = quantize_value(weight(j), inv_scale);
            i32::from(code) * i32::from(head.values[j * dim + d])
        };
        let acc: i32 = positions.clone().map(product).sum();
        *o = (acc as f32).mul_add(scale, *o);
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
