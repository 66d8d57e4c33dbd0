//! The logarithm of the softmax of a row: maxima are order-free, sums run in 16 lanes.

use super::{LANES, exp, sum_lanes};

/// `x = x - (max + ln(sum(exp(x - max))))`; the logarithm is taken in f64 and rounded once.
pub fn log_softmax(x: &mut [f32]) {
    let max = x
        .iter()
        .fold(f32::NEG_INFINITY, |max, &v| if v > max { v } else { max });
    let mut lanes = [0.0; LANES];
    for (i, v) in x.iter().enumerate() {
        lanes[i % LANES] += exp(v - max);
    }
    let log_sum = log_sum_exp(max, sum_lanes(lanes));
    for v in x {
        *v -= log_sum;
    }
}

/// `max + ln(sum)`.
#[inline(always)]
pub fn log_sum_exp(max: f32, sum: f32) -> f32 {
    (f64::from(max) + f64::from(sum).ln()) as f32
}
