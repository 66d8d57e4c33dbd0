//! log-softmax of logits: maxima have no order, the sum runs in 16 lanes.

use dualgrain_device::naive::{exp, log_sum_exp};

use super::reduce::{fold_lanes, max};
use crate::isa::per_isa;

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
