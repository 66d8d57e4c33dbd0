//! Attention of one query over the cached keys and values of one head.
//!
//! The softmax is one that can be split over keys and gives the same bits wherever it is split. Scores are counted in powers
//! of two. A page of 64 positions has a reference, a whole number at least as large as its scores, and its numerators are
//! `2^(score - reference)`. Pages join into spans of 512 positions and spans into the whole, always in order of positions, and
//! what is joined is brought to the larger of both references by a power of two, which rounds nothing. Pages and spans are
//! counted from position 0, so the order of additions depends on positions alone.

use std::f32::consts::LOG2_E;
use std::ops::RangeInclusive;

use half::f16;

use super::quantize::{quantize_value, usable_scale};
use super::{LANES, exp2, sum_lanes, tanh};
use crate::{AttentionParams, PAGE_TOKENS};

/// Positions of a span: pages are joined within a span first, so that spans can be attended apart from each other.
pub const SPAN_TOKENS: usize = 8 * PAGE_TOKENS;

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

/// How products of a query with keys become scores.
#[derive(Debug, Clone, Copy)]
pub struct Scoring {
    /// [`AttentionParams::score_factor`]
    factor: f32,
    /// [`AttentionParams::soft_cap`]
    soft_cap: Option<f32>,
    /// ALiBi's slope of the head.
    slope: Option<f32>,
    /// The head's sink.
    sink: Option<f32>,
}

impl Scoring {
    /// That of a query head.
    ///
    /// # Panics
    /// When there are slopes or sinks, and none for that head.
    pub fn of(params: &AttentionParams, head: usize) -> Self {
        Self {
            factor: params.score_factor(),
            soft_cap: params.soft_cap,
            slope: params.alibi_slopes.as_ref().map(|slopes| slopes[head]),
            sink: params.sinks.as_ref().map(|sinks| sinks[head]),
        }
    }

    /// The score in powers of two at position `j`, from a product times the factor.
    fn finish(&self, scaled: f32, j: usize) -> f32 {
        let score = match self.soft_cap {
            None => scaled,
            Some(cap) => tanh(scaled) * (cap * LOG2_E),
        };
        self.slope
            .map_or(score, |slope| score + (slope * LOG2_E) * j as f32)
    }
}

/// `out = softmax(scores) * values` for the keys at `first..=last`, with scores counted in powers of two:
/// `score[j] = (q . key[j]) * (scale * log2 e) + (slope * log2 e) * j`, and with a soft cap
/// `tanh((q . key[j]) * (scale / cap)) * (cap * log2 e)` in the place of the first summand.
///
/// Dot products accumulate over head_dim by fused multiply-adds; within a page the output accumulates `numerator[j]` times
/// `value[j]` over j in order by fused multiply-adds from 0.
pub fn attention(q: &[f32], head: CachedHead<'_>, range: (usize, usize), scoring: Scoring, out: &mut [f32]) {
    let (dim, factor) = (q.len(), scoring.factor);
    let score = |j: usize| {
        let key = &head.keys[j * dim..(j + 1) * dim];
        let dot = q.iter().zip(key).fold(0.0f32, |acc, (q, k)| q.mul_add(*k, acc));
        scoring.finish(dot * factor, j)
    };
    over_pages(range, scoring.sink, out, |positions, span| {
        let page = Numerators::of(positions.clone(), score);
        let mut outputs = vec![0.0f32; dim];
        for (j, numerator) in positions.zip(&page.numerators) {
            for (o, v) in outputs.iter_mut().zip(&head.values[j * dim..(j + 1) * dim]) {
                *o = numerator.mul_add(*v, *o);
            }
        }
        span.join(page.reference, page.sum, &outputs, 1.0);
    });
}

/// The same over INT8 codes, with integer products.
///
/// The query becomes codes with `tq = absmax / 127`, as activations do, and
/// `score[j] = (((acc as f32 * tq) * key_scale[j]) * (scale * log2 e)) + (slope * log2 e) * j`, nothing fused; a soft cap changes it as
/// in [`attention`]. Within a page the
/// weights `numerator[j] * value_scale[j]` become codes 0..=127 with the scale `max / 127`, ties to even; the page's output is
/// the sum of products of codes, times that scale as it joins the span. The sum of numerators is that before they became
/// codes.
pub fn attention_int8(
    q: &[f32],
    head: CachedHeadInt8<'_>,
    range: (usize, usize),
    scoring: Scoring,
    out: &mut [f32],
) {
    let (dim, factor) = (q.len(), scoring.factor);
    let mut query = vec![0; dim];
    let tq = to_int8(q, None, &mut query);
    let score = |j: usize| {
        let key = &head.keys[j * dim..(j + 1) * dim];
        let products = query.iter().zip(key).map(|(q, k)| i32::from(*q) * i32::from(*k));
        let scaled = ((products.sum::<i32>() as f32 * tq) * head.key_scales[j]) * factor;
        scoring.finish(scaled, j)
    };
    over_pages(range, scoring.sink, out, |positions, span| {
        let page = Numerators::of(positions.clone(), score);
        let weights = page.numerators.iter().zip(&head.value_scales[positions.clone()]);
        let weights: Vec<f32> = weights.map(|(numerator, scale)| numerator * scale).collect();
        let max = weights.iter().fold(0.0, |max, &v| if v > max { v } else { max });
        let (weight_scale, inv_scale) = usable_scale(max / 127.0);
        let product = |d: usize| {
            let codes = weights.iter().map(|&weight| quantize_value(weight, inv_scale));
            let products = positions.clone().zip(codes);
            products
                .map(|(j, code)| i32::from(code) * i32::from(head.values[j * dim + d]))
                .sum::<i32>()
        };
        let outputs: Vec<f32> = (0..dim).map(|d| product(d) as f32).collect();
        span.join(page.reference, page.sum, &outputs, weight_scale);
    });
}

/// Calls `add_page` with the positions of each page and the span that it joins, and writes what all spans give, and a sink if there is one.
fn over_pages(
    (first, last): (usize, usize),
    sink: Option<f32>,
    out: &mut [f32],
    add_page: impl Fn(RangeInclusive<usize>, &mut Weighted),
) {
    let mut total = Weighted::nothing(out.len());
    for span_start in (first / SPAN_TOKENS * SPAN_TOKENS..=last).step_by(SPAN_TOKENS) {
        let mut span = Weighted::nothing(out.len());
        let from = span_start.max(first / PAGE_TOKENS * PAGE_TOKENS);
        let to = last.min(span_start + SPAN_TOKENS - 1);
        for page in (from..=to).step_by(PAGE_TOKENS) {
            add_page(first.max(page)..=last.min(page + PAGE_TOKENS - 1), &mut span);
        }
        total.join(span.reference, span.sum, &span.outputs, 1.0);
    }
    if let Some(sink) = sink {
        // Of one position, which has no value.
        let page = Numerators::of(0..=0, |_| sink * LOG2_E);
        total.join(page.reference, page.sum, &vec![0.0; out.len()], 1.0);
    }
    let inv_sum = 1.0 / total.sum;
    for (o, v) in out.iter_mut().zip(&total.outputs) {
        // The addition makes zeros positive: a page that only other queries see must not show, not even in a sign.
        *o = v * inv_sum + 0.0;
    }
}

/// Softmax numerators of the positions of a page.
struct Numerators {
    /// The least whole number that no score passes, as a float; for scores of negative infinity alone the least finite float,
    /// so that they weigh nothing.
    reference: f32,
    /// `2^(score - reference)`
    numerators: Vec<f32>,
    sum: f32,
}

impl Numerators {
    fn of(positions: RangeInclusive<usize>, score: impl Fn(usize) -> f32) -> Self {
        let mut numerators: Vec<f32> = positions.clone().map(score).collect();
        let larger = |max, &score| if score > max { score } else { max };
        let reference = numerators.iter().fold(f32::MIN, larger).ceil();
        let mut lanes = [0.0; LANES];
        for (j, numerator) in positions.zip(&mut numerators) {
            *numerator = exp2(*numerator - reference);
            lanes[j % LANES] += *numerator;
        }
        Self {
            reference,
            numerators,
            sum: sum_lanes(lanes),
        }
    }
}

/// A sum of weighted values, relative to `2^reference`.
struct Weighted {
    reference: f32,
    /// Of the weights.
    sum: f32,
    outputs: Vec<f32>,
}

impl Weighted {
    fn nothing(dim: usize) -> Self {
        Self {
            reference: f32::MIN,
            sum: 0.0,
            outputs: vec![0.0; dim],
        }
    }

    /// Adds what positions further on give: `outputs` times `scale`, relative to their own reference.
    fn join(&mut self, reference: f32, sum: f32, outputs: &[f32], scale: f32) {
        let larger = if reference > self.reference {
            reference
        } else {
            self.reference
        };
        let (before, added) = (exp2(self.reference - larger), exp2(reference - larger));
        self.reference = larger;
        self.sum = sum.mul_add(added, self.sum * before);
        let scale = scale * added;
        for (o, v) in self.outputs.iter_mut().zip(outputs) {
            *o = v.mul_add(scale, *o * before);
        }
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
