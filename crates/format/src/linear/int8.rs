//! Linear layers with INT8 weights and one scale a channel.

use crate::error::FormatError;
use crate::linear::checks::{check_len, check_scales, elements};

/// A linear layer with int8 weights: `w[n,k] = s1[n] * w8[n,k]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Int8Linear {
    n: usize,
    k: usize,
    w8: Vec<i8>,
    s1: Vec<f32>,
    bias: Option<Vec<f32>>,
    ta: Option<f32>,
}

impl Int8Linear {
    /// Checks and takes `w8` `[N,K]` in -127..=127, `s1` `[N]`, `bias` `[N]` and a static activation scale.
    ///
    /// # Errors
    /// A length that does not fit the shape, -128 among the weights, or a float that is not finite.
    pub fn new(
        (n, k): (usize, usize),
        w8: Vec<i8>,
        s1: Vec<f32>,
        bias: Option<Vec<f32>>,
        ta: Option<f32>,
    ) -> Result<Self, FormatError> {
        check_len("w8", w8.len(), elements(n, k)?)?;
        if let Some(index) = w8.iter().position(|&w| w == i8::MIN) {
            return Err(FormatError::Int8Guard {
                row: index / k,
                column: index % k,
                got: -128,
                group_scale: 1,
                q: 0,
                zero: 0,
            });
        }
        check_scales(&s1, n, &bias, ta)?;
        Ok(Self {
            n,
            k,
            w8,
            s1,
            bias,
            ta,
        })
    }

    /// Output features.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Weights `[N,K]`, row-major, -127..=127.
    pub fn w8(&self) -> &[i8] {
        &self.w8
    }

    /// Channel scales `[N]`.
    pub fn s1(&self) -> &[f32] {
        &self.s1
    }

    /// Bias `[N]`.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    /// Static per-tensor activation scale; `None` means per-token.
    pub fn ta(&self) -> Option<f32> {
        self.ta
    }
}
