//! INT8 weights with one scale a row: a head, and linears that lose too much in four bits.

use dualgrain_device::Statistics;
use dualgrain_format::{GroupSize, Int8Linear, LinearWeights};

use crate::error::QuantError;
use crate::methods::method::{LinearTask, Method, MethodReport, Resources};
use crate::methods::output_error::{error_multiply_adds, output_energy, output_error_of_rows};

/// Round to nearest in eight bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Int8;

impl<D: Statistics> Method<D> for Int8 {
    fn quantize(
        &self,
        resources: &Resources<'_, D>,
        task: &LinearTask<'_>,
    ) -> Result<(LinearWeights, MethodReport), QuantError> {
        let (weights, k) = (task.rows.weights, task.rows.k);
        let (w8, s1) = round_to_int8(weights, k);
        let (device, gram) = (resources.device, &task.statistics.gram);
        let report = MethodReport {
            error: output_error_of_rows(device, gram, weights, |row, row_w8| {
                row_w8.copy_from_slice(&w8[row * k..][..k]);
                s1[row]
            })?,
            energy: output_energy(device, gram, weights)?,
            ratio_histogram: Vec::new(),
        };
        let shape = (s1.len(), k);
        resources
            .meter
            .advance(Method::<D>::multiply_adds(self, shape, task.group_size))?;
        let bias = task.rows.bias.map(<[f32]>::to_vec);
        let linear = Int8Linear::new(shape, w8, s1, bias, task.ta())?;
        Ok((LinearWeights::W8(linear), report))
    }

    fn fits_inputs(&self) -> bool {
        false
    }

    /// The error and the energy of every row.
    fn multiply_adds(&self, shape: (usize, usize), _: GroupSize) -> u64 {
        error_multiply_adds(shape)
    }
}

/// The INT8 codes `[N,K]` of `rows`, and the scale of each row `[N]`: its abs-max by 127.
pub fn round_to_int8(rows: &[f32], k: usize) -> (Vec<i8>, Vec<f32>) {
    let (mut w8, mut s1) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len() / k));
    for row in rows.chunks_exact(k) {
        let scale = row.iter().fold(0.0_f32, |max, w| max.max(w.abs())) / 127.0;
        let inv_scale = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        let code = |w: &f32| (w * inv_scale).round_ties_even().clamp(-127.0, 127.0) as i8;
        w8.extend(row.iter().map(code));
        s1.push(scale);
    }
    (w8, s1)
}

/// The errors `[N,K]` that rounding `weights` `[N,K]` to INT8 leaves.
pub fn int8_rounding_errors(weights: &[f32], k: usize) -> Vec<f32> {
    let (w8, s1) = round_to_int8(weights, k);
    let stored = w8.chunks_exact(k).zip(&s1);
    let stored = stored.flat_map(|(row, s1)| row.iter().map(move |&w8| s1 * f32::from(w8)));
    weights.iter().zip(stored).map(|(w, stored)| w - stored).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_reaches_its_end_of_the_range_and_zeros_stay_zero() {
        let (w8, s1) = round_to_int8(&[-2.0, 1.0, 0.0, 0.0], 2);
        assert_eq!(w8, [-127, 64, 0, 0]);
        assert_eq!(s1, [2.0 / 127.0, 0.0]);
    }
}
