//! A linear in integers as bf16.

use dualgrain_format::{FloatValues, LinearWeights};
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
        transform(&mut row, block);
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

/// Multiplies every run of `block` elements, a power of two, with the orthonormal Hadamard matrix of that order (Sylvester's).
fn transform(row: &mut [f64], block: usize) {
    let scale = 1.0 / (block as f64).sqrt();
    for run in row.chunks_exact_mut(block) {
        let mut apart = 1;
        while apart < run.len() {
            for pair in run.chunks_exact_mut(2 * apart) {
                let (low, high) = pair.split_at_mut(apart);
                for (a, b) in low.iter_mut().zip(high) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            apart *= 2;
        }
        run.iter_mut().for_each(|value| *value *= scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transform_is_its_own_inverse() {
        let row: Vec<f64> = (0..16).map(f64::from).collect();
        let mut twice = row.clone();
        transform(&mut twice, 8);
        assert_ne!(twice, row);
        transform(&mut twice, 8);
        let error = |(a, b): (&f64, &f64)| (a - b).abs();
        assert!(row.iter().zip(&twice).map(error).fold(0.0, f64::max) < 1e-12);
    }
}
