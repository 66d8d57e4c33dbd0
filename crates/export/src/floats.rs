//! A linear in integers as bf16.

use dualgrain_format::{FloatValues, LinearWeights, transform_blocks};
use half::bf16;

use crate::error::ExportError;
use crate::source::{Source, StoredLinear};

/// The weights `[n, k]` that a linear's integers stand for, `s1 * w8` rounded once to bf16, little endian. A transform of its input is
/// multiplied into them, so that the model needs none.
///
/// # Errors
/// Missing or damaged tensors.
pub fn bf16_weights(source: &Source, linear: &StoredLinear) -> Result<Vec<u8>, ExportError> {
    let mut bytes = Vec::with_capacity(linear.n.saturating_mul(linear.k).saturating_mul(2));
    for rows in linear.slices() {
        let weights = source.rows(linear, rows)?;
        match linear.hadamard {
            None => push_floats(weights, &mut bytes)?,
            Some(block) => push_transformed(&weights, block, &mut bytes),
        }
    }
    Ok(bytes)
}

fn push_floats(weights: LinearWeights, bytes: &mut Vec<u8>) -> Result<(), ExportError> {
    match weights.into_float()?.weight() {
        FloatValues::F32(values) => {
            bytes.extend(
                values
                    .iter()
                    .flat_map(|&value| bf16::from_f32(value).to_le_bytes()),
            );
        }
        FloatValues::Bf16(values) => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
    }
    Ok(())
}

/// The folder has `W H` for the input `H x`; the product with the plain input is `W H H = W`, since `H` is its own inverse.
fn push_transformed(weights: &LinearWeights, block: usize, bytes: &mut Vec<u8>) {
    let mut row = vec![0.0; weights.k()];
    for index in 0..weights.n() {
        wide_row(weights, index, &mut row);
        transform_blocks(&mut row, block);
        bytes.extend(row.iter().flat_map(|&value| bf16::from_f64(value).to_le_bytes()));
    }
}

/// A row in f64, which holds `s1 * w8` exactly.
fn wide_row(weights: &LinearWeights, index: usize, row: &mut [f64]) {
    let mut w8 = vec![0_i8; row.len()];
    let s1 = match weights {
        LinearWeights::W4(linear) => {
            linear.w8_row(index, &mut w8);
            linear.s1()[index]
        }
        LinearWeights::W8(linear) => {
            let k = linear.k();
            w8.copy_from_slice(&linear.w8()[index * k..(index + 1) * k]);
            linear.s1()[index]
        }
        LinearWeights::Float(linear) => {
            let first = index * row.len();
            row.iter_mut()
                .enumerate()
                .for_each(|(column, value)| *value = f64::from(linear.weight().at(first + column)));
            return;
        }
    };
    row.iter_mut()
        .zip(&w8)
        .for_each(|(value, &w8)| *value = f64::from(s1) * f64::from(w8));
}
