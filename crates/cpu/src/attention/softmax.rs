//! The softmax of a row's scores.

use dualgrain_device::naive::{exp, sum_lanes};

use crate::float::lanes::LANES;
use crate::isa::per_isa;
use crate::rows::reduce::max;

per_isa! {
    /// Numerators of the softmax over `first..=last`, zero outside; returns their sum.
    pub(super) fn softmax(scores: &mut [f32], first: usize, last: usize) -> f32 = softmax_lanes
}

/// The row starts at a multiple of 64 positions, so lane j of a chunk of 16 is lane j of the sum.
#[inline(always)]
fn softmax_lanes(scores: &mut [f32], first: usize, last: usize) -> f32 {
    let max = max(&scores[first..=last]);
    scores[..first].fill(f32::NEG_INFINITY);
    scores[last + 1..].fill(f32::NEG_INFINITY);
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = scores.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            chunk[lane] = exp(chunk[lane] - max);
            lanes[lane] += chunk[lane];
        }
    }
    for (lane, score) in lanes.iter_mut().zip(rest) {
        *score = exp(*score - max);
        *lane += *score;
    }
    sum_lanes(lanes)
}
