//! Both products of attention over a float cache, by the float tile.
//!
//! Scores = Q * K^T (keys lie transposed), then scale and ALiBi; outputs += P * V, each one chain of fused multiply-adds
//! over key positions.

use dualgrain_device::PAGE_TOKENS;

use super::job::{Job, Page, Products};
use super::scratch::Scratch;
use crate::float::lanes::{Element, LANES};
use crate::float::tile::{FloatTile, multiply};
use crate::isa::per_isa;
use crate::kv_cache::element::padded_dim;
use crate::kv_cache::storage::Planes;

impl<E: Element> Products for Planes<E> {
    fn prepare(&self, _: &Job<'_>, _: &mut Scratch) {}

    fn score(&self, job: &Job<'_>, page: &Page, scratch: &mut Scratch) {
        let (dim, stride) = (job.cache.shape.head_dim, scratch.stride);
        let vectors = page.keys.div_ceil(LANES);
        let rows = scratch.inv_sums.len();
        let block = page.head_page * dim * PAGE_TOKENS;
        let tile = FloatTile {
            a: scratch.queries.as_ptr(),
            a_row: dim,
            a_k: 1,
            b: self.keys[block..block + dim * PAGE_TOKENS].as_ptr(),
            b_vector: LANES,
            b_k: PAGE_TOKENS,
            k: dim,
            c: scratch.scores[page.offset..].as_mut_ptr(),
            c_row: stride,
            c_vector: LANES,
            from_zero: true,
        };
        // SAFETY: `rows` queries of `dim`; the page has 4 vectors for each dimension; a row of scores has room for
        // whole pages (stride).
        unsafe { multiply(job.isa, tile, rows, vectors) };
        for row in 0..rows {
            let slope = job.slope(page.kv_head, row);
            let scores = &mut scratch.scores[row * stride + page.offset..][..vectors * LANES];
            scale_scores(job.isa, scores, job.params.scale, slope, page.start);
        }
    }

    fn add_values(&self, job: &Job<'_>, page: &Page, scratch: &mut Scratch) {
        let dim = padded_dim(job.cache.shape.head_dim);
        let block = page.head_page * PAGE_TOKENS * dim;
        let tile = FloatTile {
            a: scratch.scores[page.offset..].as_ptr(),
            a_row: scratch.stride,
            a_k: 1,
            b: self.values[block..block + PAGE_TOKENS * dim].as_ptr(),
            b_vector: LANES,
            b_k: dim,
            k: page.keys,
            c: scratch.outputs.as_mut_ptr(),
            c_row: dim,
            c_vector: LANES,
            from_zero: page.offset == 0,
        };
        // SAFETY: as many rows of at least `keys` weights, a page of values, as many outputs of `dim`.
        unsafe { multiply(job.isa, tile, scratch.inv_sums.len(), dim / LANES) };
    }
}

per_isa! {
    fn scale_scores(scores: &mut [f32], scale: f32, slope: Option<f32>, start: usize) = scale_scores_lanes
}

#[inline(always)]
fn scale_scores_lanes(scores: &mut [f32], scale: f32, slope: Option<f32>, start: usize) {
    for score in scores.iter_mut() {
        *score *= scale;
    }
    let Some(slope) = slope else { return };
    for (offset, score) in scores.iter_mut().enumerate() {
        *score += slope * (start + offset) as u32 as f32;
    }
}
