//! Quadratic forms `e * gram * e^T` of many rows e, reading only the lower triangle: half the operations.
//!
//! With y_i = sum_{j<i} gram_ij e_j the form is `sum_i e_i (gram_ii e_i + 2 y_i)`. Lanes are rows e, so y is a matrix
//! product: the left operand is the gram matrix, the right one the rows packed `[rows/16][K][16]`. A task owns some rows and
//! walks the triangle in blocks of 120 gram rows: the part left of the block's diagonal square as any product (kc
//! at a time, packed), the square tile by tile with zeros packed on and above the diagonal. Each y is one chain over j = 0, 1, 2, ..., as the specification has it.

use std::cell::RefCell;
use std::ops::Range;

use dualgrain_device::Gram;
use dualgrain_threads::Pool;

use super::lanes::LANES;
use super::packing::{pack_rows, transpose_to_panel};
use super::tile::{FloatTile, multiply, tile_shape};
use crate::isa::{Isa, per_isa};
use crate::memory::aligned::Aligned;

/// Gram rows whose y are kept at a time: a multiple of every tile's rows.
const BLOCK: usize = 120;
const KC: usize = 256;
/// Rows of a task when there are enough: a packed gram element then serves 384 rows.
const MAX_TASK_ROWS: usize = 384;

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch::new()) };
}

/// A thread's buffers, grown to the longest K once.
struct Scratch {
    /// The task's rows `[rows/16][K][16]`.
    errors: Option<Aligned<f32>>,
    /// A packed block of the gram matrix `[120/mr][kc][mr]`.
    gram: Vec<f32>,
    /// y of a block: `[120][rows]`.
    below: Vec<f32>,
    /// Totals of the rows.
    totals: Vec<f64>,
}

impl Scratch {
    const fn new() -> Self {
        Self {
            errors: None,
            gram: Vec::new(),
            below: Vec::new(),
            totals: Vec::new(),
        }
    }
}

/// `out[r] = errors[r] * gram * errors[r]^T`.
pub(crate) fn quadratic_forms(isa: Isa, pool: &Pool, gram: &Gram, errors: &[f32], out: &mut [f64]) {
    let k = gram.k();
    assert_eq!(
        errors.len(),
        out.len() * k,
        "error rows of the Gram matrix's side"
    );
    let rows = out
        .len()
        .div_ceil(pool.num_threads())
        .next_multiple_of(2 * LANES)
        .min(MAX_TASK_ROWS);
    pool.for_each_chunk(out, rows, |task, out| {
        let errors = &errors[task * rows * k..][..out.len() * k];
        SCRATCH.with_borrow_mut(|scratch| {
            let Scratch {
                errors: packed,
                gram: packed_gram,
                below,
                totals,
            } = scratch;
            let rows = out.len().next_multiple_of(LANES);
            let packed = Aligned::at_least(packed, 0.0, rows * k);
            below.resize(BLOCK * rows, 0.0);
            totals.clear();
            totals.resize(rows, 0.0);
            for (rows, panel) in errors.chunks(LANES * k).zip(packed.chunks_exact_mut(LANES * k)) {
                transpose_to_panel(isa, rows, k, panel);
            }
            let forms = Forms {
                isa,
                gram: gram.values(),
                k,
                rows,
                errors: packed,
            };
            for start in (0..k).step_by(BLOCK) {
                forms.block(start..(start + BLOCK).min(k), packed_gram, below, totals);
            }
            out.copy_from_slice(&totals[..out.len()]);
        });
    });
}

struct Forms<'a> {
    isa: Isa,
    gram: &'a [f32],
    k: usize,
    /// A multiple of 16.
    rows: usize,
    errors: &'a [f32],
}

impl Forms<'_> {
    /// Adds the terms of gram rows `block` to the totals.
    fn block(&self, block: Range<usize>, packed: &mut Vec<f32>, below: &mut [f32], totals: &mut [f64]) {
        let (mr, _) = tile_shape(self.isa);
        for start in (0..block.start).step_by(KC) {
            let ks = start..(start + KC).min(block.start);
            pack_rows(self.isa, self.gram, self.k, block.clone(), ks.clone(), mr, packed);
            self.multiply(&block, block.clone(), ks, packed, below);
        }
        for row in block.clone().step_by(mr) {
            let rows = row..(row + mr).min(block.end);
            let ks = block.start..rows.end;
            pack_rows(self.isa, self.gram, self.k, rows.clone(), ks.clone(), mr, packed);
            // What lies on and above the diagonal counts as zero.
            for (lane, i) in rows.clone().enumerate() {
                packed[(i - block.start) * mr..]
                    .iter_mut()
                    .skip(lane)
                    .step_by(mr)
                    .for_each(|h| *h = 0.0);
            }
            self.multiply(&block, rows, ks, packed, below);
        }
        finish(self.isa, (self.gram, self.k), self.errors, block, below, totals);
    }

    /// `below[rows] += gram[rows, ks] * errors[ks]`, the gram's part packed.
    fn multiply(
        &self,
        block: &Range<usize>,
        rows: Range<usize>,
        ks: Range<usize>,
        packed: &[f32],
        below: &mut [f32],
    ) {
        let (mr, vectors) = tile_shape(self.isa);
        let num_panels = self.rows / LANES;
        for panel in (0..num_panels).step_by(vectors) {
            for (tile_idx, row) in rows.clone().step_by(mr).enumerate() {
                let tile_rows = mr.min(rows.end - row);
                let c = &mut below[(row - block.start) * self.rows + panel * LANES..];
                let tile = FloatTile {
                    a: packed[tile_idx * mr * ks.len()..].as_ptr(),
                    a_row: 1,
                    a_k: mr,
                    b: self.errors[(panel * self.k + ks.start) * LANES..].as_ptr(),
                    b_vector: LANES * self.k,
                    b_k: LANES,
                    k: ks.len(),
                    c: c.as_mut_ptr(),
                    c_row: self.rows,
                    c_vector: LANES,
                    // The block's first product starts every y.
                    from_zero: ks.start == 0,
                };
                // SAFETY: the gram's part is packed in tiles of mr rows, the panels hold k lines, `below` has a row
                // of `rows` for each gram row of the block.
                unsafe { multiply(self.isa, tile, tile_rows, vectors.min(num_panels - panel)) };
            }
        }
    }
}

per_isa! {
    /// Adds `e_i (gram_ii e_i + 2 y_i)` of the gram rows `block` to the totals, in order.
    fn finish(
        gram: (&[f32], usize),
        errors: &[f32],
        block: Range<usize>,
        below: &[f32],
        totals: &mut [f64],
    ) = finish_lanes
}

#[inline(always)]
fn finish_lanes(
    (gram, k): (&[f32], usize),
    errors: &[f32],
    block: Range<usize>,
    below: &[f32],
    totals: &mut [f64],
) {
    let rows = totals.len();
    let panels = errors
        .chunks_exact(LANES * k)
        .zip(totals.as_chunks_mut::<LANES>().0);
    for (panel, (errors, totals)) in panels.enumerate() {
        let mut sums = *totals;
        for (i, below) in block.clone().zip(below.chunks_exact(rows)) {
            let diagonal = gram[i * k + i];
            let (e, y) = (&errors[i * LANES..][..LANES], &below[panel * LANES..][..LANES]);
            for lane in 0..LANES {
                let inner = 2.0f32.mul_add(y[lane], diagonal * e[lane]);
                sums[lane] += f64::from(e[lane]) * f64::from(inner);
            }
        }
        *totals = sums;
    }
}
