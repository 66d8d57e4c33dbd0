//! Phase 2, the coarse grain: one float scale a row, on which the group scales become integers.
//!
//! Eighty ratios of `max|W[n,:]| / 127` are tried as s1; each turns the float group scales of phase 1 into
//! `s2 = max(1, round(scale / s1))` and is judged by the squared error of the whole output row, with the full Gram
//! matrix. That objective is rough in the ratio (every s2 jumps at its own place), so a coarse grid of ratios misses
//! the best by 2..11 % of the objective. A screen (approximate_gram.rs) ranks all eighty by an approximation that costs a few per cent of
//! the exact form instead; only the [`SHORTLIST`] best are judged exactly. DGQ, arXiv 2310.04836.

use dualgrain_device::{Device, Gram};
use dualgrain_format::GroupSize;

use crate::methods::dgq::approximate_gram::{RANK, Screen};
use crate::methods::dgq::group_search::{GroupChoice, least};
use crate::methods::quantization_grid::{Grid, abs_max};

/// Candidates of phase 2.
pub const NUM_CHANNEL_RATIOS: usize = 80;

/// Candidates of a row that are judged with the full Gram matrix after screening.
pub const SHORTLIST: usize = 8;

/// Ratio `index` of phase 2: 1.00975 down to 0.20.
pub fn channel_ratio(index: usize) -> f32 {
    (1.02 - 0.82 * (index + 1) as f64 / NUM_CHANNEL_RATIOS as f64) as f32
}

/// A row between the phases.
#[derive(Debug, Clone, Copy)]
pub struct RowGroups<'a> {
    weights: &'a [f32],
    groups: &'a [GroupChoice],
    group_size: GroupSize,
    largest: f32,
}

/// What phase 2 decides about one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChannelChoice {
    /// Index of the ratio.
    pub ratio_idx: usize,
    /// Squared error of the output row over the calibration tokens.
    pub objective: f64,
}

impl<'a> RowGroups<'a> {
    /// A row `[K]` with its phase 1 choices `[groups]`.
    pub fn new(weights: &'a [f32], groups: &'a [GroupChoice], group_size: GroupSize) -> Self {
        Self {
            weights,
            groups,
            group_size,
            largest: abs_max(weights),
        }
    }

    /// The channel scale of a ratio; 0 for a row of zeros.
    pub fn s1(&self, ratio: f32) -> f32 {
        self.largest / 127.0 * ratio
    }

    /// The integer scale of a group under channel scale `s1`: 1..=127.
    pub fn s2(&self, group: usize, s1: f32) -> u8 {
        if s1 <= 0.0 {
            return 1;
        }
        let steps = f64::from(self.scale(group)) / f64::from(s1);
        steps.round_ties_even().clamp(1.0, 127.0) as u8
    }

    /// The float scale of a group.
    pub fn scale(&self, group: usize) -> f32 {
        self.groups[group].scale
    }

    /// The zero point of a group.
    pub fn zero(&self, group: usize) -> u8 {
        self.groups[group].zero
    }

    /// The weights of a group.
    pub fn slice(&self, group: usize) -> &'a [f32] {
        &self.weights[self.group_size.range(group, self.weights.len())]
    }

    /// The grid a group is rounded to under channel scale `s1`; the int8 guard is kept, and clipping the weights to
    /// `127 * s1` beforehand would change nothing.
    pub fn grid(&self, group: usize, s1: f32) -> Grid {
        let s2 = self.s2(group, s1);
        Grid::new(f32::from(s2) * s1, self.zero(group), 127 / s2)
    }

    /// The errors `[K]` under channel scale `s1`.
    pub fn errors(&self, s1: f32, errors: &mut [f32]) {
        for group in 0..self.groups.len() {
            let columns = self.group_size.range(group, self.weights.len());
            self.grid(group, s1)
                .errors(self.slice(group), &mut errors[columns]);
        }
    }
}

/// Judges the ratios `candidates` [rows, per_row] of every row with the full Gram matrix and keeps the best.
pub fn best_of<D: Device>(
    device: &D,
    gram: &Gram,
    rows: &[RowGroups<'_>],
    candidates: &[u8],
) -> Vec<ChannelChoice> {
    let per_row = candidates.len() / rows.len();
    let mut errors = vec![0.0; candidates.len() * gram.k()];
    device.for_each_chunk(&mut errors, per_row * gram.k(), |row, errors| {
        let candidates = &candidates[row * per_row..][..per_row];
        for (errors, &ratio_idx) in errors.chunks_exact_mut(gram.k()).zip(candidates) {
            rows[row].errors(rows[row].s1(channel_ratio(usize::from(ratio_idx))), errors);
        }
    });
    let mut objectives = vec![0.0; candidates.len()];
    device.quadratic_rows(gram, &errors, &mut objectives);
    let chosen = objectives
        .chunks_exact(per_row)
        .zip(candidates.chunks_exact(per_row));
    chosen
        .map(|(objectives, candidates)| {
            let best = least(objectives);
            ChannelChoice {
                ratio_idx: usize::from(candidates[best]),
                objective: objectives[best],
            }
        })
        .collect()
}

/// Ranks all ratios of every row by the screen's approximation; returns the [`SHORTLIST`] best, [rows, SHORTLIST], in
/// ascending order of the index so that equal objectives keep the larger range.
pub fn shortlist<D: Device>(device: &D, screen: &Screen, rows: &[RowGroups<'_>]) -> Vec<u8> {
    let mut scores = screen_scores(device, screen, rows);
    let mut shortlist = vec![0; rows.len() * SHORTLIST];
    for (scores, chosen) in scores
        .chunks_exact_mut(NUM_CHANNEL_RATIOS)
        .zip(shortlist.chunks_exact_mut(SHORTLIST))
    {
        for choice in chosen.iter_mut() {
            let best = least(scores);
            *choice = best as u8;
            scores[best] = f64::INFINITY;
        }
        chosen.sort_unstable();
    }
    shortlist
}

/// The approximate objective of every ratio of every row, [rows, ratios].
fn screen_scores<D: Device>(device: &D, screen: &Screen, rows: &[RowGroups<'_>]) -> Vec<f64> {
    let group_size = rows[0].group_size;
    let k = rows[0].weights.len();
    let count = rows.len() * NUM_CHANNEL_RATIOS;
    let mut scores = vec![0.0; count];
    let mut partial = vec![0.0; count];
    let mut projections = vec![0.0; count * RANK];
    let mut errors = vec![0.0; count * group_size.len(k)];
    for (group, block) in screen.blocks().iter().enumerate() {
        let errors = &mut errors[..count * block.k()];
        device.for_each_chunk(errors, NUM_CHANNEL_RATIOS * block.k(), |row, errors| {
            for (ratio_idx, errors) in errors.chunks_exact_mut(block.k()).enumerate() {
                let s1 = rows[row].s1(channel_ratio(ratio_idx));
                rows[row].grid(group, s1).errors(rows[row].slice(group), errors);
            }
        });
        let factors = screen.factors(group_size.range(group, k));
        let per_row = NUM_CHANNEL_RATIOS * block.k();
        device.for_each_chunk(&mut projections, NUM_CHANNEL_RATIOS * RANK, |row, projections| {
            let errors = errors[row * per_row..][..per_row].chunks_exact(block.k());
            for (projection, errors) in projections.chunks_exact_mut(RANK).zip(errors) {
                project(errors, factors, projection);
            }
        });
        device.quadratic_rows(block, errors, &mut partial);
        scores
            .iter_mut()
            .zip(&partial)
            .for_each(|(score, part)| *score += part);
    }
    for (score, projection) in scores.iter_mut().zip(projections.chunks_exact(RANK)) {
        *score += projection
            .iter()
            .map(|&p| f64::from(p) * f64::from(p))
            .sum::<f64>();
    }
    scores
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_run_from_slightly_more_than_the_row_to_a_fifth_of_it() {
        assert!((channel_ratio(0) - 1.00975).abs() < 1e-6);
        assert!((channel_ratio(79) - 0.20).abs() < 1e-6);
    }

    #[test]
    fn a_row_of_zeros_gets_scale_zero_and_the_zero_code() {
        let groups = [GroupChoice { scale: 0.0, zero: 0 }];
        let row = RowGroups::new(&[0.0; 4], &groups, GroupSize::Along(32));
        assert_eq!((row.s1(1.0), row.s2(0, 0.0)), (0.0, 1));
        let mut errors = [1.0; 4];
        row.errors(0.0, &mut errors);
        assert_eq!(errors, [0.0; 4]);
    }

    #[test]
    fn clipping_to_the_int8_range_is_already_in_the_guard() {
        let groups = [GroupChoice { scale: 0.5, zero: 4 }];
        let weights = [-2.0, -1.0, 0.1, 1.0, 7.0];
        let row = RowGroups::new(&weights, &groups, GroupSize::Along(32));
        let s1 = row.s1(0.2);
        let clipped = weights.map(|w: f32| w.clamp(-127.0 * s1, 127.0 * s1));
        let (mut codes, mut clipped_codes) = ([0; 5], [0; 5]);
        row.grid(0, s1).codes(4, &weights, &mut codes);
        row.grid(0, s1).codes(4, &clipped, &mut clipped_codes);
        assert_eq!(codes, clipped_codes);
    }
}
