//! A linear layer in whatever scheme its checkpoint stores.

use crate::linear::float::FloatLinear;
use crate::linear::int8::Int8Linear;
use crate::linear::quantized::QuantizedLinear;
use crate::linear_scheme::LinearScheme;

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
            Self::Float(l) => l.n(),
            Self::W8(l) => l.n(),
            Self::W4(l) => l.n(),
        }
    }

    /// Input features.
    pub fn k(&self) -> usize {
        match self {
            Self::Float(l) => l.k(),
            Self::W8(l) => l.k(),
            Self::W4(l) => l.k(),
        }
    }

    /// How it is stored.
    pub fn scheme(&self) -> LinearScheme {
        match self {
            Self::Float(_) => LinearScheme::Float,
            Self::W8(_) => LinearScheme::W8,
            Self::W4(l) => LinearScheme::w4(l.group_size()),
        }
    }

    /// Bias `[N]`.
    pub fn bias(&self) -> Option<&[f32]> {
        match self {
            Self::Float(l) => l.bias(),
            Self::W8(l) => l.bias(),
            Self::W4(l) => l.bias(),
        }
    }

    /// Static per-tensor activation scale; `None` means per-token (or float activations).
    pub fn ta(&self) -> Option<f32> {
        match self {
            Self::Float(_) => None,
            Self::W8(l) => l.ta(),
            Self::W4(l) => l.ta(),
        }
    }
}
