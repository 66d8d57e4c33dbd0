//! Linear layers by scheme: float, int8 per channel, and (in `quantized.rs`) dual-grained 4-bit.

use half::bf16;

use crate::{FormatError, K_MAX, QuantizedLinear};

/// A linear layer in whatever scheme the checkpoint stores it.
#[derive(Debug, Clone, PartialEq)]
pub enum LinearWeights {
    /// Float weights, float activations.
    Float(FloatLinear),
    /// INT8 weights with a scale per channel, INT8 activations.
    W8(Int8Linear),
    /// Dual-grained 4-bit weights, INT8 activations.
    W4(QuantizedLinear),
}

impl LinearWeights {
    /// Output features.
    pub fn n(&self) -> usize {
        match self {
            Self::Float(l) => l.n,
            Self::W8(l) => l.n,
            Self::W4(l) => l.n(),
        }
    }

    /// Input features.
    pub fn k(&self) -> usize {
        match self {
            Self::Float(l) => l.k,
            Self::W8(l) => l.k,
            Self::W4(l) => l.k(),
        }
    }
}

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

/// Joins biases along N; `None` when no layer has one.
pub(crate) fn join_biases<'a>(
    biases: impl Iterator<Item = (Option<&'a [f32]>, usize)> + Clone,
) -> Option<Vec<f32>> {
    biases.clone().any(|(bias, _)| bias.is_some()).then(|| {
        biases
            .flat_map(|(bias, n)| bias.map_or_else(|| vec![0.0; n], <[f32]>::to_vec))
            .collect()
    })
}

/// `n * k`, refused when a side is zero, K too long for i32 sums, or the product overflows.
pub(crate) fn elements(n: usize, k: usize) -> Result<usize, FormatError> {
    if n == 0 {
        return Err(FormatError::Dimension {
            what: "N",
            expected: "1 and more",
            got: n,
        });
    }
    if k == 0 || k > K_MAX {
        return Err(FormatError::Dimension {
            what: "K",
            expected: "1..=131071",
            got: k,
        });
    }
    n.checked_mul(k).ok_or(FormatError::Dimension {
        what: "N",
        expected: "N * K in memory",
        got: n,
    })
}

pub(crate) fn check_len(what: &'static str, got: usize, expected: usize) -> Result<(), FormatError> {
    if got == expected {
        Ok(())
    } else {
        Err(FormatError::Length { what, expected, got })
    }
}

pub(crate) fn check_finite(
    what: &'static str,
    values: impl Iterator<Item = f32>,
    non_negative: bool,
) -> Result<(), FormatError> {
    for (index, got) in values.enumerate() {
        if !got.is_finite() || (non_negative && got < 0.0) {
            return Err(FormatError::NotFinite {
                what,
                index,
                got,
                non_negative,
            });
        }
    }
    Ok(())
}

pub(crate) fn check_bias(bias: &Option<Vec<f32>>, n: usize) -> Result<(), FormatError> {
    let Some(bias) = bias else { return Ok(()) };
    check_len("bias", bias.len(), n)?;
    check_finite("bias", bias.iter().copied(), false)
}

pub(crate) fn check_scales(
    s1: &[f32],
    n: usize,
    bias: &Option<Vec<f32>>,
    ta: Option<f32>,
) -> Result<(), FormatError> {
    check_len("s1", s1.len(), n)?;
    check_finite("s1", s1.iter().copied(), true)?;
    check_bias(bias, n)?;
    check_finite("ta", ta.into_iter(), true)
}
