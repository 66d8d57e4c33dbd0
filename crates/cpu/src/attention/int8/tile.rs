//! The integer tiles of attention: dot products of four codes in 16 lanes, exact in i32.
//!
//! Lanes are keys of a score and dimensions of an output, the four codes of a lane lie side by side in the cache, and
//! a row's four (of a query, of its weights) are broadcast. A score's sum is below 127 * 127 * 512 and an output's of one
//! page below 127 * 127 * 64, so both are exact as f32 as well; what follows is the fixed float order of `Device`.

use dualgrain_device::PAGE_TOKENS;

use super::dot::Dot;
use crate::float::lanes::{F32x16, LANES};
use crate::kv_cache::element::QUAD;

/// Bytes of 16 lanes.
const LINE: usize = QUAD * LANES;

/// A product that is computed in tiles.
pub(super) trait Product: Copy {
    /// Rows `row ..` by 16-lane vectors `vector ..`.
    ///
    /// # Safety
    /// The addresses the product names for them are valid, and `D`'s instruction set is there.
    unsafe fn tile<D: Dot, const MR: usize, const V: usize>(self, row: usize, vector: usize);
}

/// `scores[m][j] = ((queries[m] . keys[j]) * query_scales[m]) * key_scales[j] * scale`.
#[derive(Clone, Copy)]
pub(super) struct Scores {
    /// `[quads][rows][4]`
    pub(super) queries: *const i8,
    pub(super) rows: usize,
    pub(super) query_scales: *const f32,
    /// Sums of each query's codes.
    pub(super) query_sums: *const i32,
    /// `[quads][64][4]`, code + 128.
    pub(super) keys: *const i8,
    pub(super) quads: usize,
    /// `[64]`
    pub(super) key_scales: *const f32,
    pub(super) scale: f32,
    /// `[rows][64]`
    pub(super) scores: *mut f32,
}

impl Product for Scores {
    #[inline(always)]
    unsafe fn tile<D: Dot, const MR: usize, const V: usize>(self, row: usize, vector: usize) {
        // SAFETY: the caller vouches for MR rows and V vectors.
        unsafe {
            let mut sums = [[D::zero(); V]; MR];
            for (m, sums) in sums.iter_mut().enumerate() {
                *sums = [D::start(*self.query_sums.add(row + m)); V];
            }
            let mut query = self.queries.add(QUAD * row);
            let mut keys = self.keys.add(LINE * vector);
            for _ in 0..self.quads {
                let mut lines = [D::keys(keys); V];
                for (v, line) in lines.iter_mut().enumerate() {
                    *line = D::keys(keys.add(LINE * v));
                }
                for (m, sums) in sums.iter_mut().enumerate() {
                    let query = D::query(query.add(QUAD * m));
                    for (sums, line) in sums.iter_mut().zip(lines) {
                        *sums = D::add_keys(*sums, query, line);
                    }
                }
                query = query.wrapping_add(QUAD * self.rows);
                keys = keys.wrapping_add(QUAD * PAGE_TOKENS);
            }
            let scale = D::Floats::splat(self.scale);
            for (m, sums) in sums.iter().enumerate() {
                let query_scale = D::Floats::splat(*self.query_scales.add(row + m));
                for (v, sums) in sums.iter().enumerate() {
                    let at = (vector + v) * LANES;
                    let key_scales = D::Floats::load(self.key_scales.add(at));
                    let score = D::floats(*sums).mul(query_scale).mul(key_scales).mul(scale);
                    score.store(self.scores.add((row + m) * PAGE_TOKENS + at));
                }
            }
        }
    }
}

/// `outputs[m][d] = fma(weights[m] . values[d], weight_scales[m], outputs[m][d])` for one page.
#[derive(Clone, Copy)]
pub(super) struct Outputs {
    /// `[rows][64]`
    pub(super) weights: *const i8,
    pub(super) weight_scales: *const f32,
    /// `[quads][dim][4]`
    pub(super) values: *const i8,
    pub(super) quads: usize,
    /// Whole vectors.
    pub(super) dim: usize,
    /// `[rows, dim]`
    pub(super) outputs: *mut f32,
    /// Whether outputs start at zero (else at what they hold).
    pub(super) from_zero: bool,
}

impl Product for Outputs {
    #[inline(always)]
    unsafe fn tile<D: Dot, const MR: usize, const V: usize>(self, row: usize, vector: usize) {
        // SAFETY: the caller vouches for MR rows and V vectors.
        unsafe {
            let mut sums = [[D::zero(); V]; MR];
            let mut weights = self.weights.add(PAGE_TOKENS * row);
            let mut values = self.values.add(LINE * vector);
            for _ in 0..self.quads {
                let mut lines = [D::values(values); V];
                for (v, line) in lines.iter_mut().enumerate() {
                    *line = D::values(values.add(LINE * v));
                }
                for (m, sums) in sums.iter_mut().enumerate() {
                    let weights = D::weights(weights.add(PAGE_TOKENS * m));
                    for (sums, line) in sums.iter_mut().zip(lines) {
                        *sums = D::add_values(*sums, weights, line);
                    }
                }
                weights = weights.wrapping_add(QUAD);
                values = values.wrapping_add(QUAD * self.dim);
            }
            for (m, sums) in sums.iter().enumerate() {
                let scale = D::Floats::splat(*self.weight_scales.add(row + m));
                for (v, sums) in sums.iter().enumerate() {
                    let output = self.outputs.add((row + m) * self.dim + (vector + v) * LANES);
                    let before = if self.from_zero {
                        D::Floats::splat(0.0)
                    } else {
                        D::Floats::load(output)
                    };
                    before.fma(D::floats(*sums), scale).store(output);
                }
            }
        }
    }
}
