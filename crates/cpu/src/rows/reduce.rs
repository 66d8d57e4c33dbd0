//! Sums and maxima of a row in 16 lanes.

use dualgrain_device::naive::{LANES, sum_lanes};

/// Lane j folds elements j, j + 16, ...; then the lanes are added pairwise.
#[inline(always)]
pub(crate) fn fold_lanes(x: &[f32], step: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = step(chunk[lane], lanes[lane]);
        }
    }
    for (lane, v) in lanes.iter_mut().zip(rest) {
        *lane = step(*v, *lane);
    }
    sum_lanes(lanes)
}

/// The largest element; NaN counts for nothing.
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

/// The largest magnitude of a head; NaN counts for nothing. (What quantizing a row does to bring its maxima together would
/// cost more than it gains.)
#[inline(always)]
pub(crate) fn abs_max(x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            let v = chunk[lane].abs();
            lanes[lane] = if v > lanes[lane] { v } else { lanes[lane] };
        }
    }
    for (lane, v) in lanes.iter_mut().zip(rest) {
        *lane = if v.abs() > *lane { v.abs() } else { *lane };
    }
    max_lanes(lanes)
}

/// The largest of 16 lanes, pairwise.
#[inline(always)]
pub(crate) fn max_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = if lanes[lane + half] > lanes[lane] {
                lanes[lane + half]
            } else {
                lanes[lane]
            };
        }
        half /= 2;
    }
    lanes[0]
}
