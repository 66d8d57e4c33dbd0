//! What the tasks of one call share, and the two products that depend on what the cache stores.

use std::f32::consts::LOG2_E;
use std::ops::Range;

use dualgrain_device::naive::tanh;
use dualgrain_device::{AttentionParams, Columns, HostStep, PAGE_TOKENS};
use dualgrain_threads::SharedSlice;

use super::scratch::Scratch;
use crate::isa::{Isa, per_isa};
use crate::kv_cache::storage::{Cache, Scales};
use crate::tensor::matrix::Matrix;

/// One call of the operation: what all its tasks share.
pub(super) struct Job<'a> {
    pub(super) isa: Isa,
    pub(super) out: &'a SharedSlice<'a, f32>,
    pub(super) x: &'a Matrix,
    pub(super) queries: Columns,
    pub(super) cache: &'a Cache,
    pub(super) layer: usize,
    pub(super) params: &'a AttentionParams,
    pub(super) step: &'a HostStep,
    pub(super) group: usize,
    /// Key and value scale of the layer, for caches that have no others.
    pub(super) fixed_scales: ([f32; PAGE_TOKENS], [f32; PAGE_TOKENS]),
}

impl Job<'_> {
    /// The factor on products of queries and keys.
    pub(super) fn scale(&self) -> f32 {
        self.params.score_factor()
    }

    /// Caps the scores of all rows and adds ALiBi's part, where the layer does so.
    #[inline]
    pub(super) fn finish_scores(&self, page: &Page, scores: &mut [[f32; PAGE_TOKENS]]) {
        if let Some(cap) = self.params.soft_cap {
            soft_cap(self.isa, scores.as_flattened_mut(), cap * LOG2_E);
        }
        let Some(slopes) = &self.params.alibi_slopes else {
            return;
        };
        let slopes = &slopes[page.kv_head * self.group..][..self.group];
        for (scores, slope) in scores.iter_mut().zip(slopes.iter().cycle()) {
            add_bias(self.isa, scores, slope * LOG2_E, page.start);
        }
    }

    /// Scales of a head's page; those of the layer stand in `fixed`.
    pub(super) fn page_scales<'s>(
        &self,
        scales: &'s Scales,
        fixed: &'s [f32; PAGE_TOKENS],
        head_page: usize,
    ) -> &'s [f32; PAGE_TOKENS] {
        match scales {
            Scales::PerLayer(_) => fixed,
            Scales::PerToken(scales) => &scales.as_chunks().0[head_page],
        }
    }
}

per_isa! {
    fn soft_cap(scores: &mut [f32], cap: f32) = soft_cap_lanes
}

#[inline(always)]
fn soft_cap_lanes(scores: &mut [f32], cap: f32) {
    scores.iter_mut().for_each(|score| *score = tanh(*score) * cap);
}

per_isa! {
    fn add_bias(scores: &mut [f32; PAGE_TOKENS], slope: f32, start: usize) = add_bias_lanes
}

#[inline(always)]
fn add_bias_lanes(scores: &mut [f32; PAGE_TOKENS], slope: f32, start: usize) {
    for (offset, score) in scores.iter_mut().enumerate() {
        *score += slope * (start + offset) as u32 as f32;
    }
}

/// The two products of attention over the pages of one element type.
pub(super) trait Products: Sync {
    /// What the rows of `scratch.queries` need before they meet keys.
    fn prepare(&self, job: &Job<'_>, scratch: &mut Scratch);
    /// Scores of all rows and the keys of a page, in powers of two.
    fn score(&self, job: &Job<'_>, page: &Page, scratch: &mut Scratch);
    /// Softmax numerators of some pages from their scores; their sums join the span's.
    fn weigh(&self, job: &Job<'_>, pages: &[Page], scratch: &mut Scratch);
    /// The page's values, weighted by numerators, join the span's outputs.
    fn add_values(&self, job: &Job<'_>, page: &Page, scratch: &mut Scratch);
}

/// A head's page in a run.
#[derive(Clone, Copy, Default)]
pub(super) struct Page {
    pub(super) kv_head: usize,
    /// Where it lies in the cache, in units of one head's page.
    pub(super) head_page: usize,
    /// Its first position.
    pub(super) start: usize,
    /// Positions that any row sees.
    pub(super) keys: usize,
    /// Its place among the pages whose scores are at hand.
    pub(super) place: usize,
    /// Whether outputs of its span begin with it.
    pub(super) is_first: bool,
}

impl Page {
    /// Its rows among those of all pages at hand.
    pub(super) fn rows(&self, rows: usize) -> Range<usize> {
        self.place * rows..(self.place + 1) * rows
    }
}
