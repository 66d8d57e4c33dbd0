//! Quantized rows divided by smoothing scales: a row's codes do not change when the row is multiplied by a number, only
//! its channel scale and its bias do.

use dualgrain_format::{FloatLinear, FloatValues, FormatError, Int8Linear, LinearWeights, QuantizedLinear};

use crate::transform::smoothing::divide;

/// `linear` with its rows from `first_row` on divided by `scales`, one a row.
///
/// # Errors
/// A scale that makes a value of a row not finite.
pub fn with_divided_rows(
    linear: LinearWeights,
    first_row: usize,
    scales: &[f32],
) -> Result<LinearWeights, FormatError> {
    let divide_vector = |values: &mut Vec<f32>| divide(&mut values[first_row..][..scales.len()], scales);
    match linear {
        LinearWeights::W4(linear) => {
            let mut parts = linear.parts().clone();
            divide_vector(&mut parts.s1);
            parts.bias.as_mut().map(divide_vector);
            let shape = (linear.n(), linear.k());
            QuantizedLinear::new(shape, linear.group_size(), parts).map(LinearWeights::W4)
        }
        LinearWeights::W8(linear) => {
            let (mut s1, mut bias) = (linear.s1().to_vec(), linear.bias().map(<[f32]>::to_vec));
            divide_vector(&mut s1);
            bias.as_mut().map(divide_vector);
            let shape = (linear.n(), linear.k());
            Int8Linear::new(shape, linear.w8().to_vec(), s1, bias, linear.ta()).map(LinearWeights::W8)
        }
        LinearWeights::Float(linear) => {
            let (n, k) = (linear.n(), linear.k());
            let (weights, mut bias) = linear.into_parts();
            let mut weights = weights.to_f32();
            for (row, scale) in weights.chunks_exact_mut(k).skip(first_row).zip(scales) {
                row.iter_mut().for_each(|weight| *weight /= scale);
            }
            bias.as_mut().map(divide_vector);
            FloatLinear::new(n, k, FloatValues::F32(weights), bias).map(LinearWeights::Float)
        }
    }
}

#[cfg(test)]
mod tests {
    use dualgrain_format::{GroupSize, QuantizedParts};

    use super::*;

    #[test]
    fn scales_divide_the_rows_they_belong_to_in_every_scheme() {
        let parts = QuantizedParts {
            q: vec![0x21; 3],
            zero: vec![0; 3],
            s2: vec![1; 3],
            s1: vec![8.0; 3],
            bias: Some(vec![6.0; 3]),
            ta: Some(0.5),
        };
        let linears = [
            LinearWeights::W4(QuantizedLinear::new((3, 2), GroupSize::WholeRow, parts).unwrap()),
            LinearWeights::W8(
                Int8Linear::new((3, 2), vec![1; 6], vec![8.0; 3], Some(vec![6.0; 3]), Some(0.5)).unwrap(),
            ),
            LinearWeights::Float(
                FloatLinear::new(3, 2, FloatValues::F32(vec![8.0; 6]), Some(vec![6.0; 3])).unwrap(),
            ),
        ];
        for linear in linears {
            let divided = with_divided_rows(linear.clone(), 1, &[2.0]).unwrap();
            assert_eq!(divided.bias(), Some([6.0, 3.0, 6.0].as_slice()));
            assert_eq!(divided.ta(), linear.ta());
            match divided {
                LinearWeights::W4(linear) => assert_eq!(linear.s1(), [8.0, 4.0, 8.0]),
                LinearWeights::W8(linear) => assert_eq!(linear.s1(), [8.0, 4.0, 8.0]),
                LinearWeights::Float(linear) => {
                    assert_eq!(linear.weight().to_f32(), [8.0, 8.0, 4.0, 4.0, 8.0, 8.0]);
                }
            }
        }
    }
}
