//! How far the output of a linear moves over the calibration tokens, from the Gram matrix of its input: for a row of
//! weight errors e the squared error of the row's output is `e H e^T`.

use dualgrain_device::{DeviceError, Gram, Statistics};
use dualgrain_format::QuantizedLinear;

use crate::methods::buffers::{ROW_BUFFER_BYTES, rows_per_buffer};

/// Multiply-adds of floats for the error and the energy of every row of a linear `[N,K]`.
pub fn error_multiply_adds((n, k): (usize, usize)) -> u64 {
    (n * k) as u64 * k as u64
}

/// Squared output of `rows` `[N,K]` over the calibration tokens: of weights, or of their errors.
///
/// # Errors
/// The device failed.
pub fn output_energy<D: Statistics>(device: &D, gram: &Gram, rows: &[f32]) -> Result<f64, DeviceError> {
    let k = gram.k();
    let mut buffer = device.output_errors(rows.len() / k)?;
    energy_in((&mut buffer, k), device, &device.view_gram(gram)?, rows)
}

/// As [`output_energy`], in a buffer with room for the rows of `[rows,K]`.
fn energy_in<D: Statistics>(
    (buffer, k): (&mut D::OutputErrors, usize),
    device: &D,
    gram: &D::GramView<'_>,
    rows: &[f32],
) -> Result<f64, DeviceError> {
    device.compute_output_errors(buffer, gram, rows)?;
    let mut energies = vec![0.0; rows.len() / k];
    device.read_output_errors(buffer, &mut energies)?;
    Ok(energies.iter().sum())
}

/// Squared error of the layer's output over the calibration tokens, from the stored codes.
///
/// # Errors
/// The device failed.
pub fn output_error<D: Statistics>(
    device: &D,
    gram: &Gram,
    weights: &[f32],
    linear: &QuantizedLinear,
) -> Result<f64, DeviceError> {
    output_error_of_rows(device, gram, weights, |row, w8| {
        linear.w8_row(row, w8);
        linear.s1()[row]
    })
}

/// As [`output_error`], from what `stored_row` says of a row: it writes the row's integers `[K]` and returns their scale.
///
/// # Errors
/// The device failed.
pub fn output_error_of_rows<D: Statistics>(
    device: &D,
    gram: &Gram,
    weights: &[f32],
    mut stored_row: impl FnMut(usize, &mut [i8]) -> f32,
) -> Result<f64, DeviceError> {
    let k = gram.k();
    let rows_at_once = k * rows_per_buffer(ROW_BUFFER_BYTES, k);
    let mut w8 = vec![0; k];
    let view = device.view_gram(gram)?;
    let mut buffer = device.output_errors(rows_at_once.min(weights.len()) / k)?;
    let mut error = 0.0;
    let mut first_row = 0;
    for weights in weights.chunks(rows_at_once) {
        let mut errors = weights.to_vec();
        for (row, errors) in errors.chunks_exact_mut(k).enumerate() {
            let s1 = stored_row(first_row + row, &mut w8);
            errors
                .iter_mut()
                .zip(&w8)
                .for_each(|(e, &w)| *e -= s1 * f32::from(w));
        }
        first_row += weights.len() / k;
        error += energy_in((&mut buffer, k), device, &view, &errors)?;
    }
    Ok(error)
}
