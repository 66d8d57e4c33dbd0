//! RMS norm and layer norm of one row.

use super::{LANES, sum_lanes};

/// `out = x / sqrt(mean(x^2) + eps) * weight`.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let inv_rms = 1.0 / (sum_by(x, |v, acc| v.mul_add(v, acc)) / x.len() as f32 + eps).sqrt();
    for ((o, v), w) in out.iter_mut().zip(x).zip(weight) {
        *o = v * inv_rms * w;
    }
}

/// `out = (x - mean) / sqrt(var + eps) * weight + bias`, the variance from the centred values.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let mean = sum_by(x, |v, acc| v + acc) / x.len() as f32;
    let square = |v: f32, acc: f32| (v - mean).mul_add(v - mean, acc);
    let inv_std = 1.0 / (sum_by(x, square) / x.len() as f32 + eps).sqrt();
    for (i, o) in out.iter_mut().enumerate() {
        *o = ((x[i] - mean) * inv_std).mul_add(weight[i], bias[i]);
    }
}

/// Folds a row in 16 lanes and adds the lanes pairwise.
fn sum_by(x: &[f32], step: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    for (i, &v) in x.iter().enumerate() {
        lanes[i % LANES] = step(v, lanes[i % LANES]);
    }
    sum_lanes(lanes)
}
