//! A linear layer in whatever scheme its checkpoint stores.

use crate::error::FormatError;
use crate::linear::float::{FloatLinear, FloatValues};
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

    /// The weights that the stored numbers stand for, `s1 * w8`, as floats. Activations are no part of it, so a static scale is left out.
    ///
    /// # Errors
    /// A scale that is not finite would be a bug of the constructors and is passed on.
    pub fn into_float(self) -> Result<FloatLinear, FormatError> {
        let (n, k, bias) = (self.n(), self.k(), self.bias().map(<[f32]>::to_vec));
        let mut row = vec![0_i8; k];
        let mut values = Vec::with_capacity(n * k);
        let mut add_row = |row: &[i8], s1: f32| values.extend(row.iter().map(|&w| s1 * f32::from(w)));
        match self {
            Self::Float(linear) => return Ok(linear),
            Self::W8(linear) => {
                let rows = linear.w8().chunks_exact(k).zip(linear.s1());
                rows.for_each(|(row, &s1)| add_row(row, s1));
            }
            Self::W4(linear) => {
                for (index, &s1) in linear.s1().iter().enumerate() {
                    linear.w8_row(index, &mut row);
                    add_row(&row, s1);
                }
            }
        }
        FloatLinear::new(n, k, FloatValues::F32(values), bias)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group_size::GroupSize;
    use crate::linear::quantized::QuantizedParts;

    #[test]
    fn floats_are_the_integers_times_their_scales() {
        let parts = QuantizedParts {
            q: vec![0x80, 0x8f, 0x18, 0x23],
            zero: vec![8, 2],
            s2: vec![10, 3],
            s1: vec![0.5, 0.25],
            bias: Some(vec![1.0, 2.0]),
            ta: Some(0.1),
        };
        let linear = QuantizedLinear::new((2, 3), GroupSize::Along(128), parts).unwrap();
        let float = LinearWeights::W4(linear).into_float().unwrap();
        let expected = vec![-40.0, 0.0, 35.0, 0.25 * 18.0, 0.25 * -3.0, 0.25 * 3.0];
        assert_eq!(float.weight(), &FloatValues::F32(expected));
        assert_eq!(float.bias(), Some(&[1.0, 2.0][..]));

        let int8 = Int8Linear::new((2, 2), vec![-127, 3, 0, 64], vec![2.0, 0.5], None, None).unwrap();
        let float = LinearWeights::W8(int8).into_float().unwrap();
        assert_eq!(float.weight(), &FloatValues::F32(vec![-254.0, 6.0, 0.0, 32.0]));
        let again = LinearWeights::Float(float.clone()).into_float().unwrap();
        assert_eq!(again, float);
    }
}
