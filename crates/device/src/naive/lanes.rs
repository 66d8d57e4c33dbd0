//! Sums of a row in 16 lanes.

/// Lanes of a row sum: lane j takes elements j, j + 16, ...
pub const LANES: usize = 16;

/// Adds 16 partial sums pairwise: (0+8, 1+9, ...), then (0+4, ...), (0+2, ...), (0+1).
#[inline(always)]
pub fn sum_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}
