//! Both products of attention over an INT8 cache, in integers.
//!
//! Queries become INT8 with a scale each, as activations do; scores are exact sums of products, scaled as floats at
//! the end. The numerators of a row, times the scales of the values, become weights 0..=127 with one scale for every page of
//! 64 positions; a page adds `sum * scale` to each output by one fused multiply-add. Pages are aligned to positions, so
//! quantizing depends on neither steps nor batch nor threads. Beside the products stand, for each row and page, one
//! pass over 64 numerators and one multiply-add for each output.

use dualgrain_device::naive::usable_scale;
use dualgrain_device::{MAX_HEAD_DIM, PAGE_TOKENS};

use super::choose::multiply;
use super::tile::{Outputs, Scores};
use crate::attention::job::{Job, Page, Products};
use crate::attention::scratch::{Codes, Scratch};
use crate::float::lanes::LANES;
use crate::isa::per_isa;
use crate::kv_cache::element::{QUAD, Stored, padded_dim, to_int8};
use crate::kv_cache::storage::Planes;
use crate::rows::quantize::ROUND_MAGIC;

impl Products for Planes<i8> {
    fn prepare(&self, job: &Job<'_>, scratch: &mut Scratch) {
        let (dim, rows) = (job.cache.shape.head_dim, scratch.inv_sums.len());
        let codes = &mut scratch.codes;
        codes.resize(rows, i8::key_dim(dim));
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
        let (stride, rows) = (scratch.stride, scratch.inv_sums.len());
        let len = i8::key_dim(job.cache.shape.head_dim) * PAGE_TOKENS;
        let scales = job.page_scales(&job.cache.key_scales, &job.fixed_scales.0, page.head_page);
        let product = Scores {
            queries: scratch.codes.queries.as_ptr(),
            rows,
            query_scales: scratch.codes.query_scales.as_ptr(),
            query_sums: scratch.codes.query_sums.as_ptr(),
            keys: self.keys[page.head_page * len..][..len].as_ptr(),
            quads: len / (QUAD * PAGE_TOKENS),
            key_scales: scales.as_ptr(),
            scale: job.params.scale,
            scores: scratch.scores[page.offset..].as_mut_ptr(),
            stride,
        };
        let vectors = page.keys.div_ceil(LANES);
        // SAFETY: codes, scale and sum of `rows` queries; a page of keys and 64 scales; a row of scores has room for
        // whole pages (stride).
        unsafe { multiply(job.isa, product, rows, vectors) };
        for row in 0..rows {
            let Some(slope) = job.slope(page.kv_head, row) else {
                break;
            };
            let scores = &mut scratch.scores[row * stride + page.offset..][..vectors * LANES];
            add_bias(job.isa, scores, slope, page.start);
        }
    }

    fn add_values(&self, job: &Job<'_>, page: &Page, scratch: &mut Scratch) {
        let dim = padded_dim(job.cache.shape.head_dim);
        let mut scales = *job.page_scales(&job.cache.value_scales, &job.fixed_scales.1, page.head_page);
        // Behind the last key stands what an earlier task left.
        scales[page.keys..].fill(0.0);
        let codes = &mut scratch.codes;
        quantize_weights(
            job.isa,
            &scratch.scores[page.offset..],
            scratch.stride,
            &scales,
            codes,
        );
        let len = dim * PAGE_TOKENS;
        let product = Outputs {
            weights: codes.weights.as_ptr().cast(),
            weight_scales: codes.weight_scales.as_ptr(),
            values: self.values[page.head_page * len..][..len].as_ptr(),
            quads: page.keys.div_ceil(QUAD),
            dim,
            outputs: scratch.outputs.as_mut_ptr(),
            from_zero: page.offset == 0,
        };
        // SAFETY: weights and scale of as many rows, a page of values, as many outputs of `dim`.
        unsafe { multiply(job.isa, product, codes.weights.len(), dim / LANES) };
    }
}

per_isa! {
    fn add_bias(scores: &mut [f32], slope: f32, start: usize) = add_bias_lanes
}

#[inline(always)]
fn add_bias_lanes(scores: &mut [f32], slope: f32, start: usize) {
    for (offset, score) in scores.iter_mut().enumerate() {
        *score += slope * (start + offset) as u32 as f32;
    }
}

per_isa! {
    /// Weights of a page: the numerators of each row (the first at `scores`, rows `stride` apart) times the scales of
    /// their values, as 0..=127 with a scale for each row. Positions with the scale 0 get no weight, whatever stands there.
    fn quantize_weights(
        scores: &[f32],
        stride: usize,
        scales: &[f32; PAGE_TOKENS],
        codes: &mut Codes,
    ) = quantize_weights_lanes
}

/// All maxima first, then all scales: a row's chain of comparisons and two divisions is long, but rows are independent.
#[inline(always)]
fn quantize_weights_lanes(scores: &[f32], stride: usize, scales: &[f32; PAGE_TOKENS], codes: &mut Codes) {
    let numerators = || scores.chunks(stride).filter_map(|row| row.first_chunk());
    for (row, max) in numerators().zip(&mut codes.weight_scales) {
        *max = largest_product(row, scales);
    }
    let of_rows = codes.weight_scales.iter_mut().zip(&mut codes.inv_weight_scales);
    for (scale, inv_scale) in of_rows {
        (*scale, *inv_scale) = usable_scale(*scale / 127.0);
    }
    let of_rows = codes.weights.iter_mut().zip(&codes.inv_weight_scales);
    for (row, (weights, inv_scale)) in numerators().zip(of_rows) {
        for i in 0..PAGE_TOKENS {
            weights[i] = round_to_weight(row[i] * scales[i] * inv_scale);
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
