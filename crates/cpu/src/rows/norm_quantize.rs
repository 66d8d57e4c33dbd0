//! A norm and the quantization behind it, without a matrix of floats between them.
//!
//! The row and the norm's weight stay in the first-level cache, so a normalized value is computed twice, for the maximum
//! and for the code, and never stored: that costs what writing and reading a buffer would, and needs none. (The maximum
//! can not be had from the sum's pass: it is one of rounded products with `1 / rms`.)

use std::ops::Range;

use dualgrain_device::ActivationScale;

use super::norm::{inv_rms, mean_and_inv_std};
use super::quantize::{Place, Row, quantize_row};
use crate::isa::per_isa;

per_isa! {
    /// `quantize` of `rms_norm` of one row.
    pub(crate) fn rms_norm_quantize(x: &[f32], weight: &[f32], eps: f32, scale: ActivationScale, place: Place<'_>) -> f32
        = rms_norm_quantize_row
}

per_isa! {
    /// `quantize` of `layer_norm` of one row.
    pub(crate) fn layer_norm_quantize(
        x: &[f32],
        weight: &[f32],
        bias: &[f32],
        eps: f32,
        scale: ActivationScale,
        place: Place<'_>,
    ) -> f32 = layer_norm_quantize_row
}

#[inline(always)]
fn rms_norm_quantize_row(
    x: &[f32],
    weight: &[f32],
    eps: f32,
    scale: ActivationScale,
    place: Place<'_>,
) -> f32 {
    let inv_rms = inv_rms(x, eps);
    // Of one length in the compiler's eyes too.
    let weight = &weight[..x.len()];
    quantize_row(RmsNormed { x, weight, inv_rms }, scale, place)
}

#[inline(always)]
fn layer_norm_quantize_row(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    scale: ActivationScale,
    place: Place<'_>,
) -> f32 {
    let (mean, inv_std) = mean_and_inv_std(x, eps);
    let row = LayerNormed {
        x,
        weight: &weight[..x.len()],
        bias: &bias[..x.len()],
        mean,
        inv_std,
    };
    quantize_row(row, scale, place)
}

/// `x * inv_rms * weight`
#[derive(Clone, Copy)]
struct RmsNormed<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    inv_rms: f32,
}

impl Row for RmsNormed<'_> {
    #[inline(always)]
    fn len(self) -> usize {
        self.x.len()
    }

    #[inline(always)]
    fn slice(self, range: Range<usize>) -> Self {
        Self {
            x: &self.x[range.clone()],
            weight: &self.weight[range],
            ..self
        }
    }

    #[inline(always)]
    fn at(self, index: usize) -> f32 {
        self.x[index] * self.inv_rms * self.weight[index]
    }
}

/// `(x - mean) * inv_std * weight + bias`
#[derive(Clone, Copy)]
struct LayerNormed<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    mean: f32,
    inv_std: f32,
}

impl Row for LayerNormed<'_> {
    #[inline(always)]
    fn len(self) -> usize {
        self.x.len()
    }

    #[inline(always)]
    fn slice(self, range: Range<usize>) -> Self {
        Self {
            x: &self.x[range.clone()],
            weight: &self.weight[range.clone()],
            bias: &self.bias[range],
            ..self
        }
    }

    #[inline(always)]
    fn at(self, index: usize) -> f32 {
        ((self.x[index] - self.mean) * self.inv_std).mul_add(self.weight[index], self.bias[index])
    }
}
