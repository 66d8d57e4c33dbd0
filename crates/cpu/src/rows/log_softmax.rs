//! log-softmax of logits: maxima have no order, the sum runs in 16 lanes.

use super::norm::fold_lanes;
use super::quantize::max_lanes;
use crate::isa::per_isa;
use dualgrain_device::naive::{LANES, exp, log_sum_exp};

per_isa! {
    /// `x = x - log(sum(exp(x)))` for one row.
    pub(crate) fn log_softmax(x: &mut [f32]) = log_softmax_lanes
}

#[inline(always)]
fn log_softmax_lanes(x: &mut [f32]) {
    let max = max(x);
    let sum = fold_lanes(x, |v, acc| acc + exp(v - max));
    let log_sum = log_sum_exp(max, sum);
    for v in x {
        *v -= log_sum;
    }
}

#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = if chunk[lane] > lanes[lane] {
                chunk[lane]
            } else {
                lanes[lane]
            };
        }
    }
    for (lane, v) in lanes.iter_mut().zip(rest) {
        *lane = if *v > *lane { *v } else { *lane };
    }
    max_lanes(lanes)
}
