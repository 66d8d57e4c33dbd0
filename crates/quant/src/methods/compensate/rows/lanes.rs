//! Sixteen rows side by side: a row's weights depend on each other in order, so lanes are rows.
//!
//! Products and sums stay apart (no fused multiply-add), so that every instruction set gives the same codes.

/// Rows that are worked on together.
pub const LANES: usize = 16;

/// One number for every row of a bundle.
pub type Lanes = [f32; LANES];

/// 1.5 * 2^23: adding and subtracting it rounds to an integer, half to even.
const ROUNDER: f32 = 12_582_912.0;

/// Steps below this are treated as zero: their reciprocal would overflow.
const SMALLEST_STEP: f32 = 1e-30;

/// The grid of one group in every row: the numbers `step * d` for integers `d` in `low..=high`, where `d` is
/// `q - zero`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LaneGrid {
    /// `s2 * s1`.
    pub step: Lanes,
    inv_step: Lanes,
    low: Lanes,
    high: Lanes,
}

impl LaneGrid {
    /// The grid of u4 codes with these scales and zero points, under the int8 guard. A step that is too small to invert
    /// gives the grid that holds only zero.
    pub fn new(s1: &Lanes, s2: &[u8; LANES], zero: &[u8; LANES]) -> Self {
        let mut grid = Self {
            step: [0.0; LANES],
            inv_step: [0.0; LANES],
            low: [0.0; LANES],
            high: [0.0; LANES],
        };
        for lane in 0..LANES {
            let (step, limit) = (f32::from(s2[lane]) * s1[lane], 127 / s2[lane]);
            if step >= SMALLEST_STEP {
                grid.step[lane] = step;
                grid.inv_step[lane] = 1.0 / step;
            }
            grid.low[lane] = -f32::from(zero[lane].min(limit));
            grid.high[lane] = f32::from((15 - zero[lane]).min(limit));
        }
        grid
    }

    /// The integers nearest to `values`, by step.
    #[inline(always)]
    pub fn nearest(&self, values: &Lanes) -> Lanes {
        let mut nearest = [0.0; LANES];
        for lane in 0..LANES {
            let rounded = (values[lane] * self.inv_step[lane] + ROUNDER) - ROUNDER;
            let above = if rounded > self.low[lane] {
                rounded
            } else {
                self.low[lane]
            };
            nearest[lane] = if above < self.high[lane] {
                above
            } else {
                self.high[lane]
            };
        }
        nearest
    }
}

/// `sum += factor * values`.
#[inline(always)]
pub fn add_scaled(sum: &mut Lanes, factor: f32, values: &Lanes) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += factor * value;
    }
}

/// `a * b`.
#[inline(always)]
pub fn times(a: &Lanes, b: &Lanes) -> Lanes {
    std::array::from_fn(|lane| a[lane] * b[lane])
}

/// `a - b`.
#[inline(always)]
pub fn minus(a: &Lanes, b: &Lanes) -> Lanes {
    std::array::from_fn(|lane| a[lane] - b[lane])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_keep_the_range_and_the_int8_guard_and_a_dead_row_stays_zero() {
        let mut s1 = [1.0; LANES];
        s1[1] = 0.0;
        let (mut s2, mut zero) = ([1; LANES], [7; LANES]);
        (s2[2], zero[2]) = (60, 12);
        let grid = LaneGrid::new(&s1, &s2, &zero);
        let far = grid.nearest(&[1e30; LANES]);
        assert_eq!((far[0], far[1], far[2]), (8.0, 0.0, 2.0));
        let low = grid.nearest(&[-1e30; LANES]);
        assert_eq!((low[0], low[1], low[2]), (-7.0, 0.0, -2.0));
        assert_eq!(grid.nearest(&[2.5; LANES])[0], 2.0);
    }
}
