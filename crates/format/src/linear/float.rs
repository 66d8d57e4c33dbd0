//! Linear layers in float.

use half::bf16;

use crate::error::FormatError;
use crate::linear::checks::{check_bias, check_finite, check_len, elements};

/// Row-major float values in the precision they are kept in.
#[derive(Debug, Clone, PartialEq)]
pub enum FloatValues {
    /// 32-bit.
    F32(Vec<f32>),
    /// bfloat16: half the memory, exact when the checkpoint is bf16.
    Bf16(Vec<bf16>),
}

impl FloatValues {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::Bf16(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Value `index` as f32 (exact).
    #[inline]
    pub fn at(&self, index: usize) -> f32 {
        match self {
            Self::F32(v) => v[index],
            Self::Bf16(v) => v[index].to_f32(),
        }
    }

    /// All values as f32 (exact).
    pub fn to_f32(&self) -> Vec<f32> {
        match self {
            Self::F32(v) => v.clone(),
            Self::Bf16(v) => v.iter().map(|x| x.to_f32()).collect(),
        }
    }
}

/// A linear layer in float: `d = a * weight^T + bias`.
#[derive(Debug, Clone, PartialEq)]
pub struct FloatLinear {
    n: usize,
    k: usize,
    weight: FloatValues,
    bias: Option<Vec<f32>>,
}

impl FloatLinear {
    /// Checks and takes `weight` `[N,K]` and `bias` `[N]`.
    ///
    /// # Errors
    /// A length that does not fit the shape, or a value that is not finite.
    pub fn new(n: usize, k: usize, weight: FloatValues, bias: Option<Vec<f32>>) -> Result<Self, FormatError> {
        check_len("weight", weight.len(), elements(n, k)?)?;
        match &weight {
            // Loops that look at every value vectorize; which one is not finite is found out where there is one.
            FloatValues::F32(v) if v.iter().fold(true, |all, v| all & v.is_finite()) => {}
            FloatValues::Bf16(v) if v.iter().fold(true, |all, v| all & v.is_finite()) => {}
            FloatValues::F32(v) => check_finite("weight", v.iter().copied(), false)?,
            FloatValues::Bf16(v) => check_finite("weight", v.iter().map(|x| x.to_f32()), false)?,
        }
        check_bias(&bias, n)?;
        Ok(Self { n, k, weight, bias })
    }

    /// Output features.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Weights `[N,K]` and bias `[N]`, to change them without a copy.
    pub fn into_parts(self) -> (FloatValues, Option<Vec<f32>>) {
        (self.weight, self.bias)
    }

    /// Weights `[N,K]`, row-major.
    pub fn weight(&self) -> &FloatValues {
        &self.weight
    }

    /// Bias `[N]`.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }
}
