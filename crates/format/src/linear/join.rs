//! Joining linears that read the same input along N, and taking rows back out: rows are independent in every scheme.

use half::bf16;

use crate::error::FormatError;
use crate::linear::bias::join_biases;
use crate::linear::checks::{check_all_same, check_rows, no_layers};
use crate::linear::float::{FloatLinear, FloatValues};
use crate::linear::int8::Int8Linear;
use crate::linear::quantized::QuantizedLinear;
use crate::linear::weights::LinearWeights;

impl LinearWeights {
    /// Joins layers of one scheme along N (q, k and v; gate and up). A missing bias among present ones becomes zeros.
    ///
    /// # Errors
    /// [`FormatError::Join`] when schemes, K, group sizes or static activation scales differ.
    pub fn join(layers: Vec<Self>) -> Result<Self, FormatError> {
        check_all_same("schemes", layers.iter().map(|layer| layer.scheme().to_string()))?;
        let (mut float, mut w8, mut w4) = (Vec::new(), Vec::new(), Vec::new());
        for layer in layers {
            match layer {
                Self::Float(l) => float.push(l),
                Self::W8(l) => w8.push(l),
                Self::W4(l) => w4.push(l),
            }
        }
        match (float.is_empty(), w8.is_empty(), w4.is_empty()) {
            (false, ..) => join_float(&float).map(Self::Float),
            (_, false, _) => join_w8(&w8).map(Self::W8),
            (_, _, false) => QuantizedLinear::join(&w4).map(Self::W4),
            _ => Err(no_layers()),
        }
    }

    /// The rows of `rows`, in that order.
    ///
    /// # Errors
    /// A row index outside the layer, or no rows at all.
    pub fn select_rows(&self, rows: &[usize]) -> Result<Self, FormatError> {
        check_rows(rows, self.n())?;
        match self {
            Self::Float(l) => select_float(l, rows).map(Self::Float),
            Self::W8(l) => select_w8(l, rows).map(Self::W8),
            Self::W4(l) => l.select_rows(rows).map(Self::W4),
        }
    }
}

fn join_float(layers: &[FloatLinear]) -> Result<FloatLinear, FormatError> {
    let k = common_k(layers.iter().map(FloatLinear::k))?;
    let n = layers.iter().map(FloatLinear::n).sum();
    let bias = join_biases(layers.iter().map(|l| (l.bias(), l.n())));
    FloatLinear::new(n, k, join_values(layers.iter().map(FloatLinear::weight)), bias)
}

/// bf16 only when every part is: widening is exact, narrowing is not.
fn join_values<'a>(parts: impl Iterator<Item = &'a FloatValues> + Clone) -> FloatValues {
    let halves = parts.clone().map(|part| match part {
        FloatValues::Bf16(v) => Some(v.as_slice()),
        FloatValues::F32(_) => None,
    });
    match halves.collect::<Option<Vec<&[bf16]>>>() {
        Some(halves) => FloatValues::Bf16(halves.concat()),
        None => FloatValues::F32(parts.flat_map(FloatValues::to_f32).collect()),
    }
}

fn join_w8(layers: &[Int8Linear]) -> Result<Int8Linear, FormatError> {
    let k = common_k(layers.iter().map(Int8Linear::k))?;
    check_all_same("static activation scales", layers.iter().map(Int8Linear::ta))?;
    let n = layers.iter().map(Int8Linear::n).sum();
    let w8 = layers.iter().flat_map(|l| l.w8().iter().copied()).collect();
    let s1 = layers.iter().flat_map(|l| l.s1().iter().copied()).collect();
    let bias = join_biases(layers.iter().map(|l| (l.bias(), l.n())));
    Int8Linear::new((n, k), w8, s1, bias, layers[0].ta())
}

fn common_k(mut ks: impl Iterator<Item = usize> + Clone) -> Result<usize, FormatError> {
    check_all_same("K", ks.clone())?;
    ks.next().ok_or_else(no_layers)
}

fn select_float(l: &FloatLinear, rows: &[usize]) -> Result<FloatLinear, FormatError> {
    let weight = match l.weight() {
        FloatValues::F32(v) => FloatValues::F32(gather_rows(v, l.k(), rows)),
        FloatValues::Bf16(v) => FloatValues::Bf16(gather_rows(v, l.k(), rows)),
    };
    let bias = l.bias().map(|bias| gather_rows(bias, 1, rows));
    FloatLinear::new(rows.len(), l.k(), weight, bias)
}

fn select_w8(l: &Int8Linear, rows: &[usize]) -> Result<Int8Linear, FormatError> {
    let bias = l.bias().map(|bias| gather_rows(bias, 1, rows));
    let (w8, s1) = (gather_rows(l.w8(), l.k(), rows), gather_rows(l.s1(), 1, rows));
    Int8Linear::new((rows.len(), l.k()), w8, s1, bias, l.ta())
}

fn gather_rows<T: Copy>(values: &[T], columns: usize, rows: &[usize]) -> Vec<T> {
    rows.iter()
        .flat_map(|&row| values[row * columns..(row + 1) * columns].iter().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn float(n: usize, first: f32, bias: bool) -> LinearWeights {
        let weight = (0..2 * n).map(|i| first + i as f32).collect();
        let bias = bias.then(|| vec![first; n]);
        LinearWeights::Float(FloatLinear::new(n, 2, FloatValues::F32(weight), bias).unwrap())
    }

    fn w8(n: usize, first: i8) -> LinearWeights {
        let codes = (0..2 * n).map(|i| first + i as i8).collect();
        LinearWeights::W8(Int8Linear::new((n, 2), codes, vec![0.5; n], None, Some(0.25)).unwrap())
    }

    #[test]
    fn every_scheme_selects_back_what_was_joined() {
        for (a, b) in [(float(2, 0.0, true), float(1, 9.0, true)), (w8(2, 1), w8(1, -4))] {
            let joined = LinearWeights::join(vec![a.clone(), b.clone()]).unwrap();
            assert_eq!(joined.n(), 3);
            assert_eq!(joined.select_rows(&[0, 1]).unwrap(), a);
            assert_eq!(joined.select_rows(&[2]).unwrap(), b);
        }
    }

    #[test]
    fn a_missing_bias_joins_as_zeros() {
        let joined = LinearWeights::join(vec![float(1, 5.0, true), float(2, 0.0, false)]).unwrap();
        assert_eq!(joined.bias(), Some([5.0, 0.0, 0.0].as_slice()));
    }

    #[test]
    fn layers_of_two_schemes_or_none_do_not_join() {
        assert!(matches!(
            LinearWeights::join(vec![float(1, 0.0, false), w8(1, 0)]),
            Err(FormatError::Join { what: "schemes", .. })
        ));
        assert!(LinearWeights::join(Vec::new()).is_err());
        assert!(w8(1, 0).select_rows(&[1]).is_err());
    }
}
