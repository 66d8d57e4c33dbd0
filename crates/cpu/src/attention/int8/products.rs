//! Both products of attention over an INT8 cache, in integers.
//!
//! Queries become INT8 with a scale each, as activations do; scores are exact sums of products, scaled as floats at
//! the end. The numerators of a row, times the scales of the values, become weights 0..=127 with one scale for every page of
//! 64 positions; a page adds `sum * scale` to each output of its span by one fused multiply-add. Beside the products stand,
//! for each row and page, a few passes over 64 scores in the first-level cache and one multiply-add for each output.

use dualgrain_device::naive::usable_scale;
use dualgrain_device::{MAX_HEAD_DIM, PAGE_TOKENS};

use super::choose::multiply;
use super::tile::{Outputs, Scores};
use crate::attention::job::{Job, Page, Products};
use crate::attention::scratch::{Codes, SPAN_PAGES, Scratch};
use crate::attention::softmax::Softmax;
use crate::float::lanes::LANES;
use crate::isa::per_isa;
use crate::kv_cache::element::{QUAD, Stored, padded_dim, to_int8};
use crate::kv_cache::storage::Planes;
use crate::rows::quantize::ROUND_MAGIC;

impl Products for Planes<i8> {
    fn prepare(&self, job: &Job<'_>, scratch: &mut Scratch) {
        let (dim, rows) = (job.cache.shape.head_dim, scratch.rows);
        let codes = &mut scratch.codes;
        codes.begin(rows, i8::key_dim(dim));
        for (row, query) in scratch.queries.chunks_exact(dim).enumerate() {
            let mut of_query = [0; MAX_HEAD_DIM];
            codes.query_scales[row] = to_int8(job.isa, query, None, &mut of_query[..dim]);
            codes.query_sums[row] = of_query[..dim].iter().map(|&code| i32::from(code)).sum();
            let quads = codes.queries.as_chunks_mut::<QUAD>().0;
            let of_row = quads[row..].iter_mut().step_by(rows);
            for (quad, code) in of_row.zip(of_query.as_chunks().0) {
                *quad = *code;
            }
        }
    }

    fn score(&self, job: &Job<'_>, page: &Page, scratch: &mut Scratch) {
        let len = i8::key_dim(job.cache.shape.head_dim) * PAGE_TOKENS;
        let scales = job.page_scales(&job.cache.key_scales, &job.fixed_scales.0, page.head_page);
        let scores = &mut scratch.scores[page.rows(scratch.rows)];
        let product = Scores {
            queries: scratch.codes.queries.as_ptr(),
            rows: scratch.rows,
            query_scales: scratch.codes.query_scales.as_ptr(),
            query_sums: scratch.codes.query_sums.as_ptr(),
            keys: self.keys[page.head_page * len..][..len].as_ptr(),
            quads: len / (QUAD * PAGE_TOKENS),
            key_scales: scales.as_ptr(),
            scale: job.scale(),
            scores: scores.as_flattened_mut().as_mut_ptr(),
        };
        // SAFETY: codes, scale and sum of `rows` queries; a page of keys and 64 scales; as many rows of 64 scores.
        unsafe { multiply(job.isa, product, scratch.rows, page.keys.div_ceil(LANES)) };
        job.finish_scores(page, scores);
    }

    fn weigh(&self, job: &Job<'_>, pages: &[Page], scratch: &mut Scratch) {
        let Scratch {
            scores,
            softmax,
            codes,
            ..
        } = scratch;
        codes.begin_pages(scores.len());
        let of_page =
            |page: &Page| job.page_scales(&job.cache.value_scales, &job.fixed_scales.1, page.head_page);
        let mut scales = [&job.fixed_scales.1; SPAN_PAGES];
        for (scales, page) in scales.iter_mut().zip(pages) {
            *scales = of_page(page);
        }
        // Behind the last key stands what an earlier task left.
        let mut of_last;
        if let [.., last] = pages
            && last.keys < PAGE_TOKENS
        {
            of_last = *of_page(last);
            of_last[last.keys..].fill(0.0);
            scales[last.place] = &of_last;
        }
        weigh(job.isa, scores, &scales[..pages.len()], softmax, codes);
    }

    fn add_values(&self, job: &Job<'_>, page: &Page, scratch: &mut Scratch) {
        let (dim, rows) = (padded_dim(job.cache.shape.head_dim), page.rows(scratch.rows));
        if !page.is_first {
            let factors = &scratch.softmax.before()[rows.clone()];
            if factors.iter().any(|factor| *factor != 1.0) {
                rescale(job.isa, &mut scratch.outputs, dim, factors);
            }
        }
        let len = dim * PAGE_TOKENS;
        let product = Outputs {
            weights: scratch.codes.weights[rows.clone()].as_ptr().cast(),
            weight_scales: scratch.codes.weight_scales[rows].as_ptr(),
            values: self.values[page.head_page * len..][..len].as_ptr(),
            quads: page.keys.div_ceil(QUAD),
            dim,
            outputs: scratch.outputs.as_mut_ptr(),
            from_zero: page.is_first,
        };
        // SAFETY: weights and scale of as many rows, a page of values, as many outputs of `dim`.
        unsafe { multiply(job.isa, product, scratch.rows, dim / LANES) };
    }
}

per_isa! {
    /// Weights of some pages: the numerators of each row times the scales of their values, as 0..=127 with a scale for each
    /// row and page. Positions with the scale 0 get no weight, whatever stands there.
    fn weigh(
        scores: &mut [[f32; PAGE_TOKENS]],
        scales: &[&[f32; PAGE_TOKENS]],
        softmax: &mut Softmax,
        codes: &mut Codes,
    ) = weigh_lanes
}

#[inline(always)]
fn weigh_lanes(
    scores: &mut [[f32; PAGE_TOKENS]],
    scales: &[&[f32; PAGE_TOKENS]],
    softmax: &mut Softmax,
    codes: &mut Codes,
) {
    softmax.meet(scores);
    let rows = scores.len() / scales.len();
    for (page, scales) in scales.iter().enumerate() {
        let places = page * rows..(page + 1) * rows;
        let of_page = scores[places.clone()]
            .iter_mut()
            .zip(&mut codes.weight_scales[places.clone()]);
        for (place, (scores, max)) in places.zip(of_page) {
            softmax.numerators(place, scores);
            *max = largest_product(scores, scales);
        }
    }
    softmax.join_pages();
    let of_rows = codes.weight_scales.iter_mut().zip(&mut codes.inv_weight_scales);
    for ((scale, inv_scale), added) in of_rows.zip(softmax.added()) {
        (*scale, *inv_scale) = usable_scale(*scale / 127.0);
        *scale *= added;
    }
    for (page, scales) in scales.iter().enumerate() {
        let places = page * rows..(page + 1) * rows;
        let of_page = codes.weights[places.clone()]
            .iter_mut()
            .zip(&codes.inv_weight_scales[places.clone()]);
        for (numerators, (weights, inv_scale)) in scores[places].iter().zip(of_page) {
            for i in 0..PAGE_TOKENS {
                weights[i] = round_to_weight(numerators[i] * scales[i] * inv_scale);
            }
        }
    }
}

per_isa! {
    /// Multiplies rows of `dim` outputs by a factor each, most of which are 1.
    fn rescale(outputs: &mut [f32], dim: usize, factors: &[f32]) = rescale_lanes
}

#[inline(always)]
fn rescale_lanes(outputs: &mut [f32], dim: usize, factors: &[f32]) {
    for (outputs, factor) in outputs.chunks_exact_mut(dim).zip(factors) {
        if *factor != 1.0 {
            outputs.iter_mut().for_each(|v| *v *= factor);
        }
    }
}

/// The largest product, at least 0.
#[inline(always)]
fn largest_product(numerators: &[f32; PAGE_TOKENS], scales: &[f32; PAGE_TOKENS]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (numerators, scales) = (numerators.as_chunks::<LANES>().0, scales.as_chunks::<LANES>().0);
    for (numerators, scales) in numerators.iter().zip(scales) {
        for lane in 0..LANES {
            let v = numerators[lane] * scales[lane];
            lanes[lane] = if v > lanes[lane] { v } else { lanes[lane] };
        }
    }
    // Bits of floats that are not negative ascend as they do, and a maximum of integers is one instruction a step.
    let bits = lanes.map(f32::to_bits);
    f32::from_bits(bits.into_iter().fold(0, u32::max))
}

/// `round_ties_even(v)` for v up to 127 and a little, 0 for NaN and what is negative.
#[inline(always)]
fn round_to_weight(v: f32) -> i8 {
    let v = if v > 0.0 { v } else { 0.0 };
    (v + ROUND_MAGIC).to_bits() as i8
}
