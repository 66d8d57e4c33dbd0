//! Round to nearest: the whole range of every group and row, without looking at activations. The method that others
//! are measured against.

use dualgrain_device::Statistics;
use dualgrain_format::{GroupSize, LinearWeights};

use crate::error::QuantError;
use crate::methods::encode::encode;
use crate::methods::group_scale::whole_ranges;
use crate::methods::grouped_row::GroupedRow;
use crate::methods::method::{LinearTask, Method, MethodReport, Resources};
use crate::methods::output_error::{error_multiply_adds, output_energy, output_error};

/// Round to nearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rtn;

impl<D: Statistics> Method<D> for Rtn {
    fn quantize(
        &self,
        resources: &Resources<'_, D>,
        task: &LinearTask<'_>,
    ) -> Result<(LinearWeights, MethodReport), QuantError> {
        let (weights, k) = (task.rows.weights, task.rows.k);
        let groups = whole_ranges(weights, k, task.group_size);
        let rows = GroupedRow::all(weights, k, &groups, task.group_size);
        let s1: Vec<f32> = rows.iter().map(GroupedRow::whole_s1).collect();
        let linear = encode(task, &rows, &s1)?;
        let (device, gram) = (resources.device, &task.statistics.gram);
        let report = MethodReport {
            error: output_error(device, gram, weights, &linear)?,
            energy: output_energy(device, gram, weights)?,
            ratio_histogram: Vec::new(),
        };
        let shape = (rows.len(), k);
        resources
            .meter
            .advance(Method::<D>::multiply_adds(self, shape, task.group_size))?;
        Ok((LinearWeights::W4(linear), report))
    }

    fn fits_inputs(&self) -> bool {
        false
    }

    /// The error and the energy of every row.
    fn multiply_adds(&self, shape: (usize, usize), _: GroupSize) -> u64 {
        error_multiply_adds(shape)
    }
}

/// The errors `[N,K]` that rounding `weights` `[N,K]` to nearest leaves.
pub fn rounding_errors(weights: &[f32], k: usize, group_size: GroupSize) -> Vec<f32> {
    let groups = whole_ranges(weights, k, group_size);
    let rows = GroupedRow::all(weights, k, &groups, group_size);
    let mut errors = vec![0.0; weights.len()];
    for (row, errors) in rows.iter().zip(errors.chunks_exact_mut(k)) {
        row.errors(row.whole_s1(), errors);
    }
    errors
}
