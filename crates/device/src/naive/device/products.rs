//! Layers joined from slices, and products of some rows.

use std::ops::Range;

use dualgrain_format::LinearWeights;

use super::{NAME, NaiveDevice};
use crate::{DeviceError, Operand, SLICE_ROWS, naive};

/// A layer that comes in slices of its rows.
pub(super) fn join<E: From<DeviceError>>(
    shape: (usize, usize),
    slices: impl Iterator<Item = Result<LinearWeights, E>>,
) -> Result<LinearWeights, E> {
    let (mut all, mut rows) = (Vec::new(), 0);
    for slice in slices {
        let slice = slice?;
        assert!(rows % SLICE_ROWS == 0, "a slice at row {rows}");
        rows += slice.n();
        all.push(slice);
    }
    assert_eq!(rows, shape.0, "rows of all slices");
    let none = DeviceError::Length {
        what: "rows of a layer",
        device: NAME.to_owned(),
        expected: 1,
        got: 0,
    };
    LinearWeights::join(all).map_err(|_| E::from(none))
}

/// Rows of an operand.
pub(super) fn rows(a: &Operand<'_, NaiveDevice>) -> usize {
    match a {
        Operand::Float(a) => a.rows(),
        Operand::Int8(a) => a.scales.len(),
    }
}

/// `d[rows, N]` of some rows of an operand.
pub(super) fn gemm(a: &Operand<'_, NaiveDevice>, rows: Range<usize>, weights: &LinearWeights, d: &mut [f32]) {
    let k = weights.k();
    let elements = rows.start * k..rows.end * k;
    let columns = |columns| assert_eq!(columns, k, "columns of A and K of the weights");
    match (a, weights) {
        (Operand::Float(a), LinearWeights::Float(linear)) => {
            columns(a.columns);
            naive::gemm_float(&a.values[elements], linear, d);
        }
        (Operand::Int8(a), integers) => {
            columns(a.columns);
            let (codes, scales) = (&a.codes[elements], &a.scales[rows]);
            let mut acc = vec![0; d.len()];
            match integers {
                LinearWeights::W8(linear) => naive::gemm_w8a8(codes, scales, linear, &mut acc, d),
                LinearWeights::W4(linear) => naive::gemm_w4a8(codes, scales, linear, &mut acc, d),
                LinearWeights::Float(_) => panic!("float weights take float activations, got INT8"),
            }
        }
        (Operand::Float(_), _) => panic!("integer weights take INT8 activations, got floats"),
    }
}
