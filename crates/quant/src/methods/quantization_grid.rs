//! Uniform grids and the error they leave: the innermost loop of the whole search.
//!
//! Every weight passes through here once for each candidate of phase 1 (20) and phase 2 (80), so the loops are
//! written to vectorize on any x86-64: no division, no branch, and rounding by the constant 1.5 * 2^23, which
//! pushes the fraction out of a float's mantissa (round half to even, exact for |x| < 2^22).

use std::ops::Range;

/// 1.5 * 2^23: adding and subtracting it rounds to an integer, half to even.
const ROUNDER: f32 = 12_582_912.0;

/// Group scales below this are treated as zero: their reciprocal would overflow.
const SMALLEST_SCALE: f32 = 1e-30;

/// The numbers `scale * d` for integers `d` in `low..=high`; `d` stands for `q - zero`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuantizationGrid {
    scale: f32,
    inv_scale: f32,
    low: f32,
    high: f32,
}

impl QuantizationGrid {
    /// The grid of a u4 group with a zero point, `q` in `0..=15`, under the guard `|q - zero| <= limit`.
    ///
    /// A scale too small to invert gives the grid that holds only zero.
    pub fn new(scale: f32, zero: u8, limit: u8) -> Self {
        let inv_scale = if scale >= SMALLEST_SCALE { 1.0 / scale } else { 0.0 };
        Self {
            scale,
            inv_scale,
            low: -f32::from(zero.min(limit)),
            high: f32::from(15_u8.saturating_sub(zero).min(limit)),
        }
    }

    /// `q - zero` of one weight.
    #[inline(always)]
    fn step(&self, weight: f32) -> f32 {
        let rounded = (weight * self.inv_scale + ROUNDER) - ROUNDER;
        let above = if rounded > self.low { rounded } else { self.low };
        if above < self.high { above } else { self.high }
    }

    /// `errors = weights - grid(weights)`.
    #[inline]
    pub fn errors(&self, weights: &[f32], errors: &mut [f32]) {
        for (error, &weight) in errors.iter_mut().zip(weights) {
            *error = weight - self.scale * self.step(weight);
        }
    }

    /// The u4 codes of `weights`.
    pub fn codes(&self, zero: u8, weights: &[f32], codes: &mut [u8]) {
        for (code, &weight) in codes.iter_mut().zip(weights) {
            *code = (f32::from(zero) + self.step(weight)) as u8;
        }
    }
}

/// Smallest and largest weight of a group, widened to hold zero.
pub fn zero_range(weights: &[f32]) -> Range<f32> {
    let min = weights
        .iter()
        .fold(0.0_f32, |min, &w| if w < min { w } else { min });
    let max = weights
        .iter()
        .fold(0.0_f32, |max, &w| if w > max { w } else { max });
    min..max
}

/// Largest magnitude of a row.
pub fn abs_max(weights: &[f32]) -> f32 {
    weights
        .iter()
        .fold(0.0_f32, |max, &w| if w.abs() > max { w.abs() } else { max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_half_to_even_like_the_standard_library() {
        let grid = QuantizationGrid::new(1.0, 7, 127);
        for weight in [-2.5_f32, -1.5, -0.5, 0.0, 0.5, 1.5, 2.5, 3.49, 7.9] {
            assert_eq!(
                grid.step(weight),
                weight.round_ties_even().clamp(-7.0, 8.0),
                "{weight}"
            );
        }
    }

    #[test]
    fn huge_and_tiny_weights_stay_on_the_grid() {
        let grid = QuantizationGrid::new(2e-30, 3, 127);
        for weight in [f32::MAX, f32::MIN, 1e30, -1e30] {
            assert_eq!(grid.step(weight), if weight > 0.0 { 12.0 } else { -3.0 });
        }
        let dead = QuantizationGrid::new(1e-40, 3, 127);
        let mut errors = [0.0];
        dead.errors(&[5e-41], &mut errors);
        assert_eq!(errors, [5e-41]);
    }

    #[test]
    fn the_int8_guard_narrows_both_ends() {
        let grid = QuantizationGrid::new(1.0, 12, 2);
        assert_eq!((grid.low, grid.high), (-2.0, 2.0));
        let mut codes = [0; 3];
        grid.codes(12, &[-9.0, 0.4, 9.0], &mut codes);
        assert_eq!(codes, [10, 12, 14]);
    }
}
