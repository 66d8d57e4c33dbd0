//! Gram matrices and quadratic forms.

use super::isa::{Isa, per_isa};
use super::pool::Pool;
use super::share::for_each_chunk;
use super::tensor::Matrix;
use crate::Gram;
use crate::naive::GRAM_BLOCK_TOKENS;

/// `gram += x^T x` on the lower triangle.
pub(crate) fn accumulate(isa: Isa, pool: &Pool, gram: &mut Gram, x: &Matrix) {
    let k = gram.k();
    assert_eq!(x.columns, k, "columns of x and side of the Gram matrix");
    for_each_chunk(pool, gram.accumulate_parts(x.rows), k, |row, out| {
        accumulate_row(isa, x.values(), k, row, out)
    });
}

per_isa! {
    fn accumulate_row(x: &[f32], k: usize, row: usize, out: &mut [f32]) = accumulate_row_lanes
}

#[inline(always)]
fn accumulate_row_lanes(x: &[f32], k: usize, row: usize, out: &mut [f32]) {
    let mut partial = vec![0.0f32; row + 1];
    for block in x.chunks(GRAM_BLOCK_TOKENS * k) {
        partial.fill(0.0);
        for x in block.chunks_exact(k) {
            for (p, v) in partial.iter_mut().zip(x) {
                *p = x[row].mul_add(*v, *p);
            }
        }
        for (o, p) in out.iter_mut().zip(&partial) {
            *o += p;
        }
    }
}

/// `out[r] = errors[r] * gram * errors[r]^T`.
pub(crate) fn quadratic_rows(isa: Isa, pool: &Pool, gram: &Gram, errors: &[f32], out: &mut [f64]) {
    let k = gram.k();
    assert_eq!(
        errors.len(),
        out.len() * k,
        "error rows of the Gram matrix's side"
    );
    for_each_chunk(pool, out, 16, |chunk, out| {
        let start = chunk * 16;
        quadratic_chunk(
            isa,
            gram.values(),
            &errors[start * k..(start + out.len()) * k],
            k,
            out,
        );
    });
}

per_isa! {
    fn quadratic_chunk(gram: &[f32], errors: &[f32], k: usize, out: &mut [f64]) = quadratic_chunk_lanes
}

#[inline(always)]
fn quadratic_chunk_lanes(gram: &[f32], errors: &[f32], k: usize, out: &mut [f64]) {
    let mut lanes = vec![[0.0f32; 16]; k];
    for (lane, e) in errors.chunks_exact(k).enumerate() {
        for (j, v) in e.iter().enumerate() {
            lanes[j][lane] = *v;
        }
    }
    let mut totals = [0.0f64; 16];
    for i in 0..k {
        let mut below = [0.0f32; 16];
        for (h, e) in gram[i * k..i * k + i].iter().zip(&lanes) {
            for lane in 0..16 {
                below[lane] = h.mul_add(e[lane], below[lane]);
            }
        }
        for lane in 0..16 {
            let e = lanes[i][lane];
            let inner = 2.0f32.mul_add(below[lane], gram[i * k + i] * e);
            totals[lane] += f64::from(e) * f64::from(inner);
        }
    }
    out.copy_from_slice(&totals[..out.len()]);
}
