//! Rotary angles, computed as transformers does: frequencies and angles in f32, cos and sin correctly rounded.

use std::f32::consts::PI;
use std::ops::Range;

use crate::{RopeConfig, RopeScaling};

/// Inverse frequencies of a model's rotary embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Angles {
    inv_freq: Vec<f32>,
}

impl Angles {
    /// Frequencies for heads of `head_dim` elements (all of them rotated).
    pub fn new(rope: &RopeConfig, head_dim: usize) -> Self {
        let plain = (0..head_dim / 2).map(|i| {
            let exponent = (2 * i) as f32 / head_dim as f32;
            1.0 / rope.theta.powf(f64::from(exponent)) as f32
        });
        let inv_freq = match rope.scaling {
            RopeScaling::Default => plain.collect(),
            RopeScaling::Linear { factor } => plain.map(|f| f / factor as f32).collect(),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_positions,
            } => {
                let ramp = Llama3Ramp {
                    factor: factor as f32,
                    low: low_freq_factor as f32,
                    high: high_freq_factor as f32,
                    context: original_max_positions as f32,
                };
                plain.map(|f| ramp.apply(f)).collect()
            }
        };
        Self { inv_freq }
    }

    /// Inverse frequencies [head_dim / 2].
    pub fn inv_freq(&self) -> &[f32] {
        &self.inv_freq
    }

    /// A row [cos | sin] of `head_dim` values for each position.
    pub fn rows(&self, positions: Range<u32>) -> Vec<f32> {
        let mut rows = Vec::with_capacity(positions.len() * 2 * self.inv_freq.len());
        for position in positions {
            // The angle is rounded to f32 as in transformers; the f64 cosine of it then rounds correctly.
            let angle = |f: &f32| f64::from(position as f32 * f);
            rows.extend(self.inv_freq.iter().map(|f| angle(f).cos() as f32));
            rows.extend(self.inv_freq.iter().map(|f| angle(f).sin() as f32));
        }
        rows
    }
}

/// Llama 3: wavelengths beyond the first training context are stretched, short ones kept, a ramp between.
struct Llama3Ramp {
    factor: f32,
    low: f32,
    high: f32,
    context: f32,
}

impl Llama3Ramp {
    fn apply(&self, inv_freq: f32) -> f32 {
        let wavelength = 2.0 * PI / inv_freq;
        if wavelength < self.context / self.high {
            return inv_freq;
        }
        if wavelength > self.context / self.low {
            return inv_freq / self.factor;
        }
        let smooth = (self.context / wavelength - self.low) / (self.high - self.low);
        (1.0 - smooth) * inv_freq / self.factor + smooth * inv_freq
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(scaling: RopeScaling) -> RopeConfig {
        RopeConfig {
            theta: 10_000.0,
            scaling,
        }
    }

    #[test]
    fn rows_hold_cosines_then_sines() {
        let angles = Angles::new(&rope(RopeScaling::Default), 4);
        assert_eq!(angles.inv_freq(), [1.0, 0.01]);
        let rows = angles.rows(0..3);
        assert_eq!(rows[..4], [1.0, 1.0, 0.0, 0.0]);
        assert_eq!(
            rows[8..],
            [2_f64.cos(), 0.02_f64.cos(), 2_f64.sin(), 0.02_f64.sin()].map(|x| x as f32)
        );
    }

    #[test]
    fn llama3_keeps_high_and_divides_low_frequencies() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_positions: 32.0,
        };
        let plain = Angles::new(&rope(RopeScaling::Default), 16);
        let scaled = Angles::new(&rope(scaling), 16);
        assert_eq!(scaled.inv_freq()[0], plain.inv_freq()[0]);
        assert_eq!(scaled.inv_freq()[7], plain.inv_freq()[7] / 8.0);
        let middle = scaled.inv_freq()[1];
        assert!(middle < plain.inv_freq()[1] && middle > plain.inv_freq()[1] / 8.0);
    }
}
