//! Both products of attention over a float cache, by the float tile.
//!
//! Scores = Q * K^T (keys lie transposed), then scale and ALiBi; a page's outputs = P * V, each one chain of fused
//! multiply-adds over its positions, which then joins the span's.

use dualgrain_device::PAGE_TOKENS;

use super::job::{Job, Page, Products};
use super::scratch::Scratch;
use super::softmax::{Softmax, join_rows};
use crate::float::lanes::{Element, LANES};
use crate::float::tile::{FloatTile, multiply};
use crate::isa::per_isa;
use crate::kv_cache::element::padded_dim;
use crate::kv_cache::storage::Planes;

impl<E: Element> Products for Planes<E> {
    fn prepare(&self, _: &Job<'_>, scratch: &mut Scratch) {
        scratch.page_outputs.resize(scratch.outputs.len(), 0.0);
    }

    fn score(&self, job: &Job<'_>, page: &Page, scratch: &mut Scratch) {
        let dim = job.cache.shape.head_dim;
        let block = page.head_page * dim * PAGE_TOKENS;
        let scores = &mut scratch.scores[page.rows(scratch.rows)];
        let tile = FloatTile {
            a: scratch.queries.as_ptr(),
            a_row: dim,
            a_k: 1,
            b: self.keys[block..block + dim * PAGE_TOKENS].as_ptr(),
            b_vector: LANES,
            b_k: PAGE_TOKENS,
            k: dim,
            c: scores.as_flattened_mut().as_mut_ptr(),
            c_row: PAGE_TOKENS,
            c_vector: LANES,
            from_zero: true,
        };
        // SAFETY: `rows` queries of `dim`; the page has 4 vectors for each dimension, as each row of scores has.
        unsafe { multiply(job.isa, tile, scratch.rows, page.keys.div_ceil(LANES)) };
        scale_scores(job.isa, scores.as_flattened_mut(), job.scale());
        job.finish_scores(page, scores);
    }

    fn weigh(&self, job: &Job<'_>, _: &[Page], scratch: &mut Scratch) {
        numerators(job.isa, &mut scratch.scores, &mut scratch.softmax);
    }

    fn add_values(&self, job: &Job<'_>, page: &Page, scratch: &mut Scratch) {
        let (dim, rows) = (padded_dim(job.cache.shape.head_dim), page.rows(scratch.rows));
        let block = page.head_page * PAGE_TOKENS * dim;
        let outputs = match page.is_first {
            true => &mut scratch.outputs,
            false => &mut scratch.page_outputs,
        };
        let tile = FloatTile {
            a: scratch.scores[rows.clone()].as_flattened().as_ptr(),
            a_row: PAGE_TOKENS,
            a_k: 1,
            b: self.values[block..block + PAGE_TOKENS * dim].as_ptr(),
            b_vector: LANES,
            b_k: dim,
            k: page.keys,
            c: outputs.as_mut_ptr(),
            c_row: dim,
            c_vector: LANES,
            from_zero: true,
        };
        // SAFETY: as many rows of at least `keys` numerators, a page of values, as many outputs of `dim`.
        unsafe { multiply(job.isa, tile, scratch.rows, dim / LANES) };
        if !page.is_first {
            let (before, added) = (
                &scratch.softmax.before()[rows.clone()],
                &scratch.softmax.added()[rows],
            );
            join_outputs(
                job.isa,
                &mut scratch.outputs,
                &scratch.page_outputs,
                dim,
                before,
                added,
            );
        }
    }
}

per_isa! {
    fn scale_scores(scores: &mut [f32], scale: f32) = scale_scores_lanes
}

#[inline(always)]
fn scale_scores_lanes(scores: &mut [f32], scale: f32) {
    for score in scores {
        *score *= scale;
    }
}

per_isa! {
    /// Numerators of all rows and pages for their scores; their sums join the span's.
    fn numerators(scores: &mut [[f32; PAGE_TOKENS]], softmax: &mut Softmax) = numerators_lanes
}

#[inline(always)]
fn numerators_lanes(scores: &mut [[f32; PAGE_TOKENS]], softmax: &mut Softmax) {
    softmax.meet(scores);
    for (place, scores) in scores.iter_mut().enumerate() {
        softmax.numerators(place, scores);
    }
    softmax.join_pages();
}

per_isa! {
    /// A page's outputs join the span's.
    fn join_outputs(outputs: &mut [f32], joining: &[f32], dim: usize, before: &[f32], added: &[f32]) = join_rows
}
