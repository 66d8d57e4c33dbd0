//! RMS norm and layer norm: 16 running sums are exactly one AVX-512 register or two of AVX2.

use super::reduce::fold_lanes;
use crate::isa::per_isa;

per_isa! {
    /// `out = x / sqrt(mean(x^2) + eps) * weight` for one row.
    pub(crate) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) = rms_norm_lanes
}

per_isa! {
    /// RMS norm in place of every head of one row.
    pub(crate) fn rms_norm_heads(x: &mut [f32], weight: &[f32], eps: f32) = rms_norm_heads_lanes
}

per_isa! {
    /// `out = (x - mean) / sqrt(var + eps) * weight + bias` for one row.
    pub(crate) fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) = layer_norm_lanes
}

#[inline(always)]
fn rms_norm_lanes(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let inv_rms = inv_rms(x, eps);
    for ((o, v), w) in out.iter_mut().zip(x).zip(weight) {
        *o = v * inv_rms * w;
    }
}

#[inline(always)]
fn rms_norm_heads_lanes(x: &mut [f32], weight: &[f32], eps: f32) {
    for head in x.chunks_exact_mut(weight.len()) {
        let inv_rms = inv_rms(head, eps);
        for (v, w) in head.iter_mut().zip(weight) {
            *v = *v * inv_rms * w;
        }
    }
}

#[inline(always)]
pub(crate) fn inv_rms(x: &[f32], eps: f32) -> f32 {
    let squares = fold_lanes(x, |v, acc| v.mul_add(v, acc));
    1.0 / (squares / x.len() as f32 + eps).sqrt()
}

#[inline(always)]
fn layer_norm_lanes(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let (mean, inv_std) = mean_and_inv_std(x, eps);
    for (((o, v), w), b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *o = ((v - mean) * inv_std).mul_add(*w, *b);
    }
}

#[inline(always)]
pub(crate) fn mean_and_inv_std(x: &[f32], eps: f32) -> (f32, f32) {
    let mean = fold_lanes(x, |v, acc| v + acc) / x.len() as f32;
    let squares = fold_lanes(x, |v, acc| (v - mean).mul_add(v - mean, acc));
    (mean, 1.0 / (squares / x.len() as f32 + eps).sqrt())
}
