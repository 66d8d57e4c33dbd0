//! The softmax of a task's rows, some pages of keys at a time.
//!
//! Each row keeps the sum of its numerators relative to a power of two, its reference (`naive/attention.rs`). What pages add is
//! computed for all rows and pages side by side, since each one's chain of comparisons, powers and divisions is long.

use std::f32::consts::LOG2_E;

use dualgrain_device::PAGE_TOKENS;
use dualgrain_device::naive::{exp2, sum_lanes};

use crate::float::lanes::LANES;
use crate::isa::{Isa, per_isa};
use crate::rows::reduce::max_lanes;

/// Sums of numerators relative to powers of two.
struct Sums {
    /// Exponents, as floats.
    references: Vec<f32>,
    sums: Vec<f32>,
}

impl Sums {
    const fn new() -> Self {
        Self {
            references: Vec::new(),
            sums: Vec::new(),
        }
    }

    /// Makes room for `len` sums once.
    fn reserve(&mut self, len: usize) {
        self.references.reserve(len.saturating_sub(self.references.len()));
        self.sums.reserve(len.saturating_sub(self.sums.len()));
    }

    /// `len` sums of nothing.
    fn clear(&mut self, len: usize) {
        self.references.clear();
        self.references.resize(len, f32::MIN);
        self.sums.clear();
        self.sums.resize(len, 0.0);
    }
}

/// The softmax of all rows of a task so far.
pub(super) struct Softmax {
    /// `[rows]`: of the spans before the present one.
    total: Sums,
    /// `[rows]`: of the present span's pages so far.
    span: Sums,
    /// `[pages, rows]`: of the pages at hand.
    pages: Sums,
    /// References of the span before each page and after the last one: `[pages + 1, rows]`.
    running: Vec<f32>,
    /// What was summed before is multiplied by this as something joins it, and what joins it by `added`: `[pages, rows]`,
    /// then `[rows]` where spans are joined.
    before: Vec<f32>,
    added: Vec<f32>,
}

impl Softmax {
    pub(super) const fn new() -> Self {
        Self {
            total: Sums::new(),
            span: Sums::new(),
            pages: Sums::new(),
            running: Vec::new(),
            before: Vec::new(),
            added: Vec::new(),
        }
    }

    /// Makes room once for `rows` rows with any number of spans, and for `len` rows of pages at hand.
    pub(super) fn reserve(&mut self, rows: usize, len: usize) {
        self.total.reserve(rows);
        self.span.reserve(rows);
        self.pages.reserve(len);
        for (buffer, len) in [
            (&mut self.running, len + rows),
            (&mut self.before, len),
            (&mut self.added, len),
        ] {
            buffer.reserve(len.saturating_sub(buffer.len()));
        }
    }

    pub(super) fn begin_span(&mut self, rows: usize) {
        self.span.clear(rows);
    }

    /// Room for the scores of some pages.
    pub(super) fn begin_pages(&mut self, len: usize) {
        self.pages.references.resize(len, 0.0);
        self.pages.sums.resize(len, 0.0);
        self.running.resize(len + self.span.references.len(), 0.0);
        self.before.resize(len, 0.0);
        self.added.resize(len, 0.0);
    }

    /// Factors of the span's outputs before each page.
    pub(super) fn before(&self) -> &[f32] {
        &self.before
    }

    /// Factors of each page's outputs.
    pub(super) fn added(&self) -> &[f32] {
        &self.added
    }

    /// Sums of all numerators.
    pub(super) fn sums(&self) -> &[f32] {
        &self.total.sums
    }

    /// References of pages from their scores `[pages, rows]`, and what pages and span are to be multiplied by as they meet.
    #[inline(always)]
    pub(super) fn meet(&mut self, scores: &[[f32; PAGE_TOKENS]]) {
        let (rows, len) = (self.span.references.len(), scores.len());
        self.running[..rows].copy_from_slice(&self.span.references);
        for (reference, scores) in self.pages.references.iter_mut().zip(scores) {
            *reference = largest(scores).ceil();
        }
        for first in (0..len).step_by(rows) {
            let (before, after) = self.running[first..first + 2 * rows].split_at_mut(rows);
            let of_page = &self.pages.references[first..first + rows];
            for ((after, before), of_page) in after.iter_mut().zip(before).zip(of_page) {
                *after = larger(*of_page, *before);
            }
        }
        self.span.references.copy_from_slice(&self.running[len..]);
        let (running, joined) = (&self.running[..len], &self.running[rows..]);
        powers(&mut self.before, running, joined);
        powers(&mut self.added, &self.pages.references, joined);
    }

    /// Replaces scores by numerators and keeps their sum; `place` counts the rows of all pages.
    #[inline(always)]
    pub(super) fn numerators(&mut self, place: usize, scores: &mut [f32; PAGE_TOKENS]) {
        let reference = self.pages.references[place];
        let mut lanes = [0.0; LANES];
        for scores in scores.as_chunks_mut::<LANES>().0 {
            for lane in 0..LANES {
                scores[lane] = exp2(scores[lane] - reference);
                lanes[lane] += scores[lane];
            }
        }
        self.pages.sums[place] = sum_lanes(lanes);
    }

    /// Adds the pages' sums to the span's.
    #[inline(always)]
    pub(super) fn join_pages(&mut self) {
        let rows = self.span.sums.len();
        for first in (0..self.pages.sums.len()).step_by(rows) {
            join(
                &mut self.span.sums,
                &self.pages.sums[first..],
                &self.before[first..],
                &self.added[first..],
            );
        }
    }

    /// The first span is the total so far.
    pub(super) fn take_first_span(&mut self) {
        std::mem::swap(&mut self.total, &mut self.span);
    }

    /// Adds a sink to the spans of each row: a span of one score, which has no output.
    pub(super) fn join_sinks(&mut self, isa: Isa, sinks: &[f32], totals: &mut [f32], dim: usize) {
        self.before.resize(self.total.sums.len(), 0.0);
        join_sinks(isa, self, sinks, totals, dim);
    }

    /// Adds the span to the spans before it; its `outputs` `[rows, dim]` likewise to `totals`.
    pub(super) fn join_span(&mut self, isa: Isa, outputs: &[f32], totals: &mut [f32], dim: usize) {
        let rows = self.span.sums.len();
        self.before.resize(rows, 0.0);
        self.added.resize(rows, 0.0);
        join_span(isa, self, outputs, totals, dim);
    }
}

per_isa! {
    /// Rows take sinks in turn.
    fn join_sinks(softmax: &mut Softmax, sinks: &[f32], totals: &mut [f32], dim: usize) = join_sinks_lanes
}

#[inline(always)]
fn join_sinks_lanes(softmax: &mut Softmax, sinks: &[f32], totals: &mut [f32], dim: usize) {
    let Softmax { total, before, .. } = softmax;
    let rows = total
        .sums
        .iter_mut()
        .zip(&mut total.references)
        .zip(before.iter_mut());
    for (((sum, reference), before), sink) in rows.zip(sinks.iter().cycle()) {
        let score = sink * LOG2_E;
        let of_sink = larger(score, f32::MIN).ceil();
        let joined = larger(of_sink, *reference);
        *before = exp2(*reference - joined);
        *sum = exp2(score - of_sink).mul_add(exp2(of_sink - joined), *sum * *before);
        *reference = joined;
    }
    for (totals, before) in totals.chunks_exact_mut(dim).zip(before.iter()) {
        totals.iter_mut().for_each(|v| *v *= before);
    }
}

per_isa! {
    fn join_span(softmax: &mut Softmax, outputs: &[f32], totals: &mut [f32], dim: usize) = join_span_lanes
}

#[inline(always)]
fn join_span_lanes(softmax: &mut Softmax, outputs: &[f32], totals: &mut [f32], dim: usize) {
    let Softmax {
        total,
        span,
        running,
        before,
        added,
        ..
    } = softmax;
    let joined = running;
    joined.clear();
    joined.extend(
        total
            .references
            .iter()
            .zip(&span.references)
            .map(|(a, b)| larger(*b, *a)),
    );
    powers(before, &total.references, joined);
    powers(added, &span.references, joined);
    total.references.copy_from_slice(joined);
    join(&mut total.sums, &span.sums, before, added);
    join_rows(totals, outputs, dim, before, added);
}

/// The reference of both; neither is NaN.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// `2^(references - joined)`
#[inline(always)]
fn powers(powers: &mut [f32], references: &[f32], joined: &[f32]) {
    for ((power, reference), joined) in powers.iter_mut().zip(references).zip(joined) {
        *power = exp2(reference - joined);
    }
}

#[inline(always)]
fn join(sums: &mut [f32], joining: &[f32], before: &[f32], added: &[f32]) {
    let factors = before.iter().zip(added);
    for ((sum, joining), (before, added)) in sums.iter_mut().zip(joining).zip(factors) {
        *sum = joining.mul_add(*added, *sum * before);
    }
}

/// `outputs[row] = fma(joining[row], added[row], outputs[row] * before[row])` for rows of `dim` elements, whole vectors.
#[inline(always)]
pub(super) fn join_rows(outputs: &mut [f32], joining: &[f32], dim: usize, before: &[f32], added: &[f32]) {
    let rows = outputs.chunks_exact_mut(dim).zip(joining.chunks_exact(dim));
    for ((outputs, joining), (before, added)) in rows.zip(before.iter().zip(added)) {
        let vectors = outputs.as_chunks_mut::<LANES>().0;
        for (outputs, joining) in vectors.iter_mut().zip(joining.as_chunks::<LANES>().0) {
            for lane in 0..LANES {
                outputs[lane] = joining[lane].mul_add(*added, outputs[lane] * before);
            }
        }
    }
}

/// The largest score, at least the least finite float; NaN counts for nothing.
#[inline(always)]
fn largest(scores: &[f32; PAGE_TOKENS]) -> f32 {
    let mut lanes = [f32::MIN; LANES];
    for scores in scores.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            lanes[lane] = if scores[lane] > lanes[lane] {
                scores[lane]
            } else {
                lanes[lane]
            };
        }
    }
    max_lanes(lanes)
}
