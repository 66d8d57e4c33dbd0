//! Phase 1, the fine grain: a float scale and a zero point for every group of a row.
//!
//! Twenty ratios shrink a group's range; the one that leaves the least error in the group's own slice of the layer
//! output wins. That error is the quadratic form of the weight errors with the group's diagonal block of the Gram
//! matrix, so it sees every calibration token and costs the same for any number of them. DGQ, arXiv 2310.04836.

use dualgrain_device::{DeviceError, Statistics};
use dualgrain_format::GroupSize;
use dualgrain_threads::Pool;

use crate::methods::dgq::candidates::{NUM_GROUP_RATIOS, group_ratio, least};
use crate::methods::group_scale::{GroupRange, GroupScale};
use crate::methods::quantization_grid::QuantizationGrid;

/// Searches the scale of every group of `weights` [rows, k]; `blocks` are the Gram matrix's diagonal blocks.
/// Returns [rows, groups]. Equal objectives keep the larger range.
///
/// # Errors
/// The device failed.
pub fn search_groups<D: Statistics>(
    (device, pool): (&D, &Pool),
    weights: &[f32],
    k: usize,
    group_size: GroupSize,
    blocks: &[D::GramView<'_>],
) -> Result<Vec<GroupScale>, DeviceError> {
    let rows = weights.len() / k;
    let mut scales = vec![GroupScale { scale: 0.0, zero: 0 }; rows * blocks.len()];
    let mut errors = vec![0.0; rows * NUM_GROUP_RATIOS * group_size.len(k)];
    let mut objectives = vec![0.0; rows * NUM_GROUP_RATIOS];
    let mut on_device = device.output_errors(objectives.len())?;
    for (group, gram) in blocks.iter().enumerate() {
        let columns = group_size.range(group, k);
        let errors = &mut errors[..rows * NUM_GROUP_RATIOS * columns.len()];
        let slice = |row: usize| &weights[row * k..][columns.clone()];
        pool.for_each_chunk(errors, NUM_GROUP_RATIOS * columns.len(), |row, errors| {
            candidate_errors(slice(row), errors);
        });
        device.compute_output_errors(&mut on_device, gram, errors)?;
        device.read_output_errors(&on_device, &mut objectives)?;
        for (row, objectives) in objectives.chunks_exact(NUM_GROUP_RATIOS).enumerate() {
            let ratio = group_ratio(least(objectives));
            scales[row * blocks.len() + group] = GroupRange::new(slice(row)).shrunk(ratio);
        }
    }
    Ok(scales)
}

/// The errors of all ratios of one group, [ratios, len].
fn candidate_errors(weights: &[f32], errors: &mut [f32]) {
    let range = GroupRange::new(weights);
    for (index, errors) in errors.chunks_exact_mut(weights.len()).enumerate() {
        let GroupScale { scale, zero } = range.shrunk(group_ratio(index));
        QuantizationGrid::new(scale, zero, 15).errors(weights, errors);
    }
}
