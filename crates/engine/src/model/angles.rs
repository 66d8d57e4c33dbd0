//! Rotary angles, computed as transformers does: frequencies and angles in f32, cos and sin correctly rounded.

use std::f32::consts::PI;
use std::f64::consts::TAU;
use std::ops::Range;

use crate::{RopeConfig, RopeScaling};

/// Inverse frequencies of a model's rotary embedding, and what cosines and sines are multiplied by.
#[derive(Debug, Clone, PartialEq)]
pub struct Angles {
    inv_freq: Vec<f32>,
    attention_factor: f32,
}

impl Angles {
    /// Frequencies for heads of `head_dim` elements (all of them rotated) and contexts of up to `context` tokens.
    ///
    /// Where transformers looks at the length of what it has got so far (dynamic, LongRoPE), the context that a session may reach
    /// decides here: all its sequences, whole or in pieces, are then rotated alike.
    pub fn new(rope: &RopeConfig, head_dim: usize, context: usize) -> Self {
        let plain = |theta: f64| powers(theta, head_dim).map(|power| 1.0 / power);
        let plain_freq = plain(rope.theta);
        let inv_freq = match &rope.scaling {
            RopeScaling::Default => plain_freq.collect(),
            RopeScaling::Linear { factor } => plain_freq.map(|f| f / *factor as f32).collect(),
            RopeScaling::Dynamic {
                factor,
                max_positions,
            } => {
                let stretch = factor * (context as f64).max(*max_positions) / max_positions - (factor - 1.0);
                let dim = head_dim as f64;
                // A head of two elements has one frequency, which no base changes.
                let exponent = if head_dim > 2 { dim / (dim - 2.0) } else { 0.0 };
                plain(rope.theta * stretch.powf(exponent)).collect()
            }
            RopeScaling::Yarn { .. } => yarn(rope, head_dim),
            RopeScaling::LongRope {
                short_factor,
                long_factor,
                original_max_positions,
                ..
            } => {
                let is_long = context as f64 > *original_max_positions;
                let factors = if is_long { long_factor } else { short_factor };
                let powers = powers(rope.theta, head_dim).zip(factors);
                powers
                    .map(|(power, factor)| 1.0 / (*factor as f32 * power))
                    .collect()
            }
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_positions,
            } => {
                let ramp = Llama3Ramp {
                    factor: *factor as f32,
                    low: *low_freq_factor as f32,
                    high: *high_freq_factor as f32,
                    context: *original_max_positions as f32,
                };
                plain_freq.map(|f| ramp.apply(f)).collect()
            }
        };
        let attention_factor = match rope.scaling {
            RopeScaling::Yarn { attention_factor, .. } | RopeScaling::LongRope { attention_factor, .. } => {
                attention_factor as f32
            }
            _ => 1.0,
        };
        Self {
            inv_freq,
            attention_factor,
        }
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
            let scale = self.attention_factor;
            rows.extend(self.inv_freq.iter().map(|f| angle(f).cos() as f32 * scale));
            rows.extend(self.inv_freq.iter().map(|f| angle(f).sin() as f32 * scale));
        }
        rows
    }
}

/// `theta^(2i / head_dim)` for each pair of elements.
fn powers(theta: f64, head_dim: usize) -> impl Iterator<Item = f32> {
    (0..head_dim / 2).map(move |i| {
        let exponent = (2 * i) as f32 / head_dim as f32;
        theta.powf(f64::from(exponent)) as f32
    })
}

/// YaRN: dimensions that turn often over the original context are kept, those that turn seldom are divided, a ramp between.
fn yarn(rope: &RopeConfig, head_dim: usize) -> Vec<f32> {
    let RopeScaling::Yarn {
        factor,
        beta_fast,
        beta_slow,
        original_max_positions,
        truncate,
        ..
    } = rope.scaling
    else {
        return Vec::new();
    };
    let dim = head_dim as f64;
    let turning = |turns: f64| dim * (original_max_positions / (turns * TAU)).ln() / (2.0 * rope.theta.ln());
    let (low, high) = (turning(beta_fast), turning(beta_slow));
    let (low, high) = match truncate {
        true => (low.floor(), high.ceil()),
        false => (low, high),
    };
    let (low, high) = (low.max(0.0), high.min(dim - 1.0));
    let width = if low == high { 0.001 } else { high - low };
    let ramp = |i: usize| ((i as f32 - low as f32) / width as f32).clamp(0.0, 1.0);
    let scaled = powers(rope.theta, head_dim).enumerate().map(|(i, power)| {
        let kept = 1.0 - ramp(i);
        1.0 / (factor as f32 * power) * (1.0 - kept) + 1.0 / power * kept
    });
    scaled.collect()
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
        let angles = Angles::new(&rope(RopeScaling::Default), 4, 16);
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
        let plain = Angles::new(&rope(RopeScaling::Default), 16, 32);
        let scaled = Angles::new(&rope(scaling), 16, 32);
        assert_eq!(scaled.inv_freq()[0], plain.inv_freq()[0]);
        assert_eq!(scaled.inv_freq()[7], plain.inv_freq()[7] / 8.0);
        let middle = scaled.inv_freq()[1];
        assert!(middle < plain.inv_freq()[1] && middle > plain.inv_freq()[1] / 8.0);
    }

    /// Frequencies of heads of 16 elements, and the factor, beside those that transformers' formulas give in 32-bit floats with numpy.
    fn assert_as_in_transformers(
        theta: f64,
        scaling: RopeScaling,
        context: usize,
        expected: (&[f32; 8], f32),
    ) {
        let angles = Angles::new(&RopeConfig { theta, scaling }, 16, context);
        for (got, expected) in angles.inv_freq().iter().zip(expected.0) {
            assert!(
                (got - expected).abs() <= 4.0 * f32::EPSILON * expected,
                "{got} {expected}"
            );
        }
        assert!(
            (angles.attention_factor - expected.1).abs() < 1e-6,
            "{}",
            angles.attention_factor
        );
        let row = angles.rows(0..1);
        assert!(row[..8].iter().all(|cos| *cos == angles.attention_factor));
    }

    #[test]
    fn yarn_keeps_fast_dimensions_and_divides_slow_ones() {
        let yarn = |factor, attention_factor, (beta_fast, beta_slow), original_max_positions, truncate| {
            RopeScaling::Yarn {
                factor,
                attention_factor,
                beta_fast,
                beta_slow,
                original_max_positions,
                truncate,
            }
        };
        let expected = [
            1.0,
            0.111_142_464,
            0.007_905_695,
            0.001_405_853_3,
            0.000_25,
            4.445_698_5e-5,
            7.905_694e-6,
            1.405_853_4e-6,
        ];
        let scaling = yarn(4.0, 1.138_629_436, (32.0, 1.0), 64.0, true);
        assert_as_in_transformers(1e6, scaling, 256, (&expected, 1.138_629_4));
        let expected = [
            1.0,
            0.039_528_47,
            0.0125,
            0.003_952_847_3,
            0.001_25,
            0.000_395_284_73,
            0.000_125,
            3.952_847_3e-5,
        ];
        let scaling = yarn(8.0, 1.094_179_988, (16.0, 2.0), 32.0, false);
        assert_as_in_transformers(10_000.0, scaling, 256, (&expected, 1.094_18));
    }

    #[test]
    fn longrope_has_a_list_for_short_and_one_for_long_contexts() {
        let scaling = RopeScaling::LongRope {
            short_factor: vec![1.0; 8],
            long_factor: (0..8).map(|i| 1.0 + 0.5 * f64::from(i)).collect(),
            attention_factor: 1.190_238_071,
            original_max_positions: 4096.0,
        };
        let expected = [
            1.0,
            0.210_818_5,
            0.05,
            0.012_649_111,
            0.003_333_333_4,
            0.000_903_507_9,
            0.000_25,
            7.027_283_6e-5,
        ];
        assert_as_in_transformers(10_000.0, scaling.clone(), 4097, (&expected, 1.190_238));
        let short = Angles::new(&rope(scaling), 16, 4096);
        let plain = Angles::new(&rope(RopeScaling::Default), 16, 4096);
        assert_eq!(short.inv_freq(), plain.inv_freq());
    }

    #[test]
    fn a_dynamic_base_grows_beyond_the_trained_context_alone() {
        let scaling = RopeScaling::Dynamic {
            factor: 2.0,
            max_positions: 2048.0,
        };
        let expected = [
            1.0,
            0.270_296_13,
            0.073_06,
            0.019_747_833,
            0.005_337_762_6,
            0.001_442_776_6,
            0.000_389_976_92,
            0.000_105_409_26,
        ];
        assert_as_in_transformers(10_000.0, scaling.clone(), 4096, (&expected, 1.0));
        let within = Angles::new(&rope(scaling), 16, 2048);
        assert_eq!(within, Angles::new(&rope(RopeScaling::Default), 16, 2048));
    }
}
