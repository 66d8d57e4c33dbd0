//! What the tasks of one call share, and the two products that depend on what the cache stores.

use dualgrain_device::{AttentionParams, Columns, HostStep, PAGE_TOKENS};
use dualgrain_threads::SharedSlice;

use super::scratch::Scratch;
use crate::isa::Isa;
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
    /// The ALiBi slope of a row.
    pub(super) fn slope(&self, kv_head: usize, row: usize) -> Option<f32> {
        let slopes = self.params.alibi_slopes.as_ref()?;
        Some(slopes[kv_head * self.group + row % self.group])
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

/// The two products of attention over the pages of one element type.
pub(super) trait Products: Sync {
    /// What the rows of `scratch.queries` need before they meet keys.
    fn prepare(&self, job: &Job<'_>, scratch: &mut Scratch);
    /// Scores of all rows and the keys of a page, scaled.
    fn score(&self, job: &Job<'_>, page: &Page, scratch: &mut Scratch);
    /// Adds the page's values, weighted by numerators, to the outputs.
    fn add_values(&self, job: &Job<'_>, page: &Page, scratch: &mut Scratch);
}

/// A head's page in a run.
pub(super) struct Page {
    pub(super) kv_head: usize,
    /// Where it lies in the cache, in units of one head's page.
    pub(super) head_page: usize,
    /// Its first position.
    pub(super) start: usize,
    /// The same from the first score on.
    pub(super) offset: usize,
    /// Positions that any row sees.
    pub(super) keys: usize,
}
