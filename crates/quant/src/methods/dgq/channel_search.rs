//! Phase 2, the coarse grain: one float scale a row, on which the group scales become integers.
//!
//! Eighty ratios of `max|W[n,:]| / 127` are tried as s1; each turns the float group scales of phase 1 into
//! `s2 = max(1, round(scale / s1))` and is judged by the squared error of the whole output row, with the full Gram
//! matrix. That objective is rough in the ratio (every s2 jumps at its own place), so a coarse set of ratios misses
//! the best by 2..11 % of the objective. An approximation (`approximate_gram.rs`) that costs a few per cent of the exact
//! form ranks all eighty instead; only the [`SHORTLIST`] best are judged exactly. DGQ, arXiv 2310.04836.

use dualgrain_device::{DeviceError, Statistics};
use dualgrain_threads::Pool;

use crate::methods::dgq::approximate_gram::{ApproximateGram, RANK};
use crate::methods::dgq::candidates::{NUM_CHANNEL_RATIOS, SHORTLIST, channel_ratio, least};
use crate::methods::grouped_row::GroupedRow;

/// What phase 2 decides about one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChannelChoice {
    /// Index of the ratio.
    pub ratio_idx: usize,
    /// Squared error of the output row over the calibration tokens.
    pub objective: f64,
}

/// Judges the ratios `candidates` [rows, per_row] of every row with the full Gram matrix and keeps the best.
///
/// # Errors
/// The device failed.
pub fn best_of<D: Statistics>(
    (device, pool): (&D, &Pool),
    gram: &D::GramView<'_>,
    rows: &[GroupedRow<'_>],
    candidates: &[u8],
) -> Result<Vec<ChannelChoice>, DeviceError> {
    let (per_row, k) = (candidates.len() / rows.len(), rows[0].k());
    let mut errors = vec![0.0; candidates.len() * k];
    pool.for_each_chunk(&mut errors, per_row * k, |row, errors| {
        let candidates = &candidates[row * per_row..][..per_row];
        for (errors, &ratio_idx) in errors.chunks_exact_mut(k).zip(candidates) {
            rows[row].errors(rows[row].s1(channel_ratio(usize::from(ratio_idx))), errors);
        }
    });
    let mut on_device = device.output_errors(candidates.len())?;
    device.compute_output_errors(&mut on_device, gram, &errors)?;
    let mut objectives = vec![0.0; candidates.len()];
    device.read_output_errors(&on_device, &mut objectives)?;
    let chosen = objectives
        .chunks_exact(per_row)
        .zip(candidates.chunks_exact(per_row));
    let choices = chosen.map(|(objectives, candidates)| {
        let best = least(objectives);
        ChannelChoice {
            ratio_idx: usize::from(candidates[best]),
            objective: objectives[best],
        }
    });
    Ok(choices.collect())
}

/// Ranks all ratios of every row by the approximate Gram matrix; returns the [`SHORTLIST`] best, [rows, SHORTLIST], in
/// ascending order of the index so that equal objectives keep the larger range.
///
/// # Errors
/// The device failed.
pub fn shortlist<D: Statistics>(
    (device, pool): (&D, &Pool),
    gram: &ApproximateGram,
    rows: &[GroupedRow<'_>],
) -> Result<Vec<u8>, DeviceError> {
    let mut objectives = approximate_objectives((device, pool), gram, rows)?;
    let mut shortlist = vec![0; rows.len() * SHORTLIST];
    for (objectives, chosen) in objectives
        .chunks_exact_mut(NUM_CHANNEL_RATIOS)
        .zip(shortlist.chunks_exact_mut(SHORTLIST))
    {
        for choice in chosen.iter_mut() {
            let best = least(objectives);
            *choice = best as u8;
            objectives[best] = f64::INFINITY;
        }
        chosen.sort_unstable();
    }
    Ok(shortlist)
}

/// The approximate objective of every ratio of every row, [rows, ratios].
fn approximate_objectives<D: Statistics>(
    (device, pool): (&D, &Pool),
    gram: &ApproximateGram,
    rows: &[GroupedRow<'_>],
) -> Result<Vec<f64>, DeviceError> {
    let (group_size, k) = (rows[0].group_size(), rows[0].k());
    let count = rows.len() * NUM_CHANNEL_RATIOS;
    let mut objectives = vec![0.0; count];
    let mut partial = vec![0.0; count];
    let mut on_device = device.output_errors(count)?;
    let mut projections = vec![0.0; count * RANK];
    let mut errors = vec![0.0; count * group_size.len(k)];
    for (group, block) in gram.blocks().iter().enumerate() {
        let errors = &mut errors[..count * block.k()];
        pool.for_each_chunk(errors, NUM_CHANNEL_RATIOS * block.k(), |row, errors| {
            for (ratio_idx, errors) in errors.chunks_exact_mut(block.k()).enumerate() {
                let s1 = rows[row].s1(channel_ratio(ratio_idx));
                rows[row].grid(group, s1).errors(rows[row].slice(group), errors);
            }
        });
        let factors = gram.factors(group_size.range(group, k));
        let per_row = NUM_CHANNEL_RATIOS * block.k();
        pool.for_each_chunk(&mut projections, NUM_CHANNEL_RATIOS * RANK, |row, projections| {
            let errors = errors[row * per_row..][..per_row].chunks_exact(block.k());
            for (projection, errors) in projections.chunks_exact_mut(RANK).zip(errors) {
                project(errors, factors, projection);
            }
        });
        device.compute_output_errors(&mut on_device, &device.view_gram(block)?, errors)?;
        device.read_output_errors(&on_device, &mut partial)?;
        objectives
            .iter_mut()
            .zip(&partial)
            .for_each(|(objective, part)| *objective += part);
    }
    for (objective, projection) in objectives.iter_mut().zip(projections.chunks_exact(RANK)) {
        *objective += projection
            .iter()
            .map(|&p| f64::from(p) * f64::from(p))
            .sum::<f64>();
    }
    Ok(objectives)
}

/// `projection += errors * factors`, factors [len, RANK].
fn project(errors: &[f32], factors: &[f32], projection: &mut [f32]) {
    let mut sums: [f32; RANK] = [0.0; RANK];
    for (&error, factors) in errors.iter().zip(factors.chunks_exact(RANK)) {
        for (sum, &factor) in sums.iter_mut().zip(factors) {
            *sum += error * factor;
        }
    }
    projection.iter_mut().zip(&sums).for_each(|(p, sum)| *p += sum);
}
