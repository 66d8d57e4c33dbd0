//! Gram matrices: `gram += x^T x`, lower triangle, in blocks of 256 tokens.
//!
//! A block of x is copied twice: `[K/mr][tokens][mr]` as the left operand, `[K/16][tokens][16]` as the right one. A task
//! owns 120 rows and some columns of the output; a pair of right panels (32 KB) stays in the first-level cache while the
//! row tiles (second level) pass over it. Each tile's sum over the block starts at zero and is added to the matrix once,
//! so the result depends neither on the tiles nor on the threads.

use std::ops::Range;

use super::aligned::Aligned;
use super::elementwise;
use super::isa::Isa;
use super::pool::Pool;
use super::share::{Shared, for_each_chunk};
use super::simd::LANES;
use super::tensor::Matrix;
use super::tile::{Tile, run, tile_shape};
use crate::Gram;
use crate::naive::GRAM_BLOCK_TOKENS;

/// Rows and columns of a task: multiples of every tile's.
const TASK_ROWS: usize = 120;
const TASK_COLUMNS: usize = 256;
/// The largest tile: 12 rows x 2 vectors.
const MAX_TILE: usize = 12 * 2 * LANES;

/// `gram += x^T x` on the lower triangle.
pub(crate) fn accumulate(isa: Isa, pool: &Pool, gram: &mut Gram, x: &Matrix) {
    let k = gram.k();
    assert_eq!(x.columns, k, "columns of x and side of the Gram matrix");
    let (mr, _) = tile_shape(isa);
    let tokens = x.rows.min(GRAM_BLOCK_TOKENS);
    let mut left = Aligned::filled(0.0, k.next_multiple_of(mr) * tokens);
    let mut right = Aligned::filled(0.0, k.next_multiple_of(LANES) * tokens);
    let values = gram.accumulate_parts(x.rows);
    for block in x.values().chunks(GRAM_BLOCK_TOKENS * k) {
        let tokens = block.len() / k;
        pack_columns(pool, block, k, mr, &mut left[..k.next_multiple_of(mr) * tokens]);
        pack_columns(
            pool,
            block,
            k,
            LANES,
            &mut right[..k.next_multiple_of(LANES) * tokens],
        );
        let gram = Shared::new(&mut *values);
        let (row_blocks, column_blocks) = (k.div_ceil(TASK_ROWS), k.div_ceil(TASK_COLUMNS));
        let product = Product {
            isa,
            k,
            tokens,
            left: &left,
            right: &right,
            gram: &gram,
        };
        pool.run(row_blocks * column_blocks, |task| {
            // The longest rows first; what lies above the diagonal has nothing to do.
            let row = (row_blocks - 1 - task / column_blocks) * TASK_ROWS;
            let column = task % column_blocks * TASK_COLUMNS;
            product.block(
                row..(row + TASK_ROWS).min(k),
                column..(column + TASK_COLUMNS).min(k),
            );
        });
    }
}

/// `[tokens, k]` to `[k/width][tokens][width]`; columns beyond k keep what was there.
fn pack_columns(pool: &Pool, x: &[f32], k: usize, width: usize, packed: &mut [f32]) {
    let tokens = x.len() / k;
    for_each_chunk(pool, packed, width * tokens, |panel, packed| {
        let columns = panel * width..((panel + 1) * width).min(k);
        for (row, packed) in x.chunks_exact(k).zip(packed.chunks_exact_mut(width)) {
            packed[..columns.len()].copy_from_slice(&row[columns.clone()]);
        }
    });
}

struct Product<'a> {
    isa: Isa,
    k: usize,
    tokens: usize,
    left: &'a [f32],
    right: &'a [f32],
    gram: &'a Shared<'a, f32>,
}

impl Product<'_> {
    /// Adds the block's part of `rows` x `columns`, as far as it lies on or below the diagonal.
    fn block(&self, rows: Range<usize>, columns: Range<usize>) {
        let (mr, vectors) = tile_shape(self.isa);
        let mut sums = [0.0; MAX_TILE];
        for column in (columns.start..columns.end.min(rows.end)).step_by(vectors * LANES) {
            let width = (columns.end - column).min(vectors * LANES);
            // The first row tile that reaches this column.
            let first = rows.start + column.saturating_sub(rows.start) / mr * mr;
            for row in (first..rows.end).step_by(mr) {
                self.tile(row, column, width.div_ceil(LANES), &mut sums);
                self.add(row..(row + mr).min(rows.end), column..column + width, &sums);
            }
        }
    }

    /// Sums over the tokens for `mr` rows and some vectors of columns.
    fn tile(&self, row: usize, column: usize, vectors: usize, sums: &mut [f32; MAX_TILE]) {
        let (mr, _) = tile_shape(self.isa);
        let tile = Tile {
            a: self.left[row * self.tokens..][..mr * self.tokens].as_ptr(),
            a_row: 1,
            a_k: mr,
            b: self.right[column * self.tokens..][..vectors * LANES * self.tokens].as_ptr(),
            b_vector: LANES * self.tokens,
            b_k: LANES,
            k: self.tokens,
            c: sums.as_mut_ptr(),
            c_row: 2 * LANES,
            c_vector: LANES,
            from_zero: true,
        };
        // SAFETY: both panels were cut to their length above; `sums` holds the largest tile.
        unsafe { run(self.isa, tile, mr, vectors) };
    }

    fn add(&self, rows: Range<usize>, columns: Range<usize>, sums: &[f32; MAX_TILE]) {
        for (row, sums) in rows.zip(sums.chunks_exact(2 * LANES)) {
            let end = columns.end.min(row + 1);
            if end <= columns.start {
                continue;
            }
            // SAFETY: this task alone touches these rows and columns.
            let gram = unsafe { self.gram.range(row * self.k + columns.start..row * self.k + end) };
            elementwise::add(self.isa, gram, &sums[..end - columns.start]);
        }
    }
}
