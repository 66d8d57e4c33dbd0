//! Gram matrices: `gram += x^T x`, lower triangle, in blocks of 256 tokens.
//!
//! A block of x is copied twice: `[K/mr][tokens][mr]` as the left operand, `[K/16][tokens][16]` as the right one. A task
//! owns 120 rows and some columns of the output; a pair of right panels (32 KB) stays in the first-level cache while the
//! row tiles (second level) pass over it. Each tile's sum over the block starts at zero and is added to the matrix once,
//! so the result depends neither on the tiles nor on the threads.

use std::cell::RefCell;
use std::ops::Range;

use dualgrain_device::Gram;
use dualgrain_device::naive::GRAM_BLOCK_TOKENS;
use dualgrain_threads::{Pool, SharedSlice};

use super::lanes::LANES;
use super::tile::{FloatTile, multiply, tile_shape};
use crate::isa::Isa;
use crate::memory::aligned::Aligned;
use crate::memory::prefetch::{part_of, prefetch};
use crate::rows::elementwise;
use crate::tensor::matrix::Matrix;

/// Rows and columns of a task, multiples of every tile's: large ones read the operands less often (they come from beyond the
/// second-level cache), small ones where the matrix is small or there are many threads.
pub(super) const TASKS: [(usize, usize); 2] = [(240, 512), (120, 256)];
/// The largest tile: 12 rows x 2 vectors.
const MAX_TILE: usize = 12 * 2 * LANES;

/// Bytes of x that are copied at a time: a task then adds several token blocks to its part of the matrix while that
/// is in the second-level cache (measured at K = 2,048: 105 to 114 GFLOPS).
const MAX_PACKED_BYTES: usize = 32 << 20;

thread_local! {
    /// The calling thread's copies, kept for its next call: fresh pages cost a third of the time at K = 512.
    static BLOCKS: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

/// `gram += x^T x` on the lower triangle.
pub(crate) fn accumulate(isa: Isa, pool: &Pool, gram: &mut Gram, x: &Matrix) {
    let k = gram.k();
    assert_eq!(x.columns, k, "columns of x and side of the Gram matrix");
    let values = gram.accumulate_parts(x.rows);
    let pass_blocks = (MAX_PACKED_BYTES / (8 * k * GRAM_BLOCK_TOKENS)).max(1);
    BLOCKS.with_borrow_mut(|blocks| {
        for pass in x.values().chunks(pass_blocks * GRAM_BLOCK_TOKENS * k) {
            let num_blocks = pass.len().div_ceil(GRAM_BLOCK_TOKENS * k);
            blocks.resize_with(num_blocks.max(blocks.len()), Block::default);
            for (block, x) in blocks.iter_mut().zip(pass.chunks(GRAM_BLOCK_TOKENS * k)) {
                block.pack(isa, pool, x, k);
            }
            let gram = SharedSlice::new(&mut *values);
            let product = Product {
                isa,
                k,
                blocks: &blocks[..num_blocks],
                gram: &gram,
            };
            product.run(pool);
        }
    });
}

/// At most 256 tokens of x as both operands.
#[derive(Default)]
struct Block {
    tokens: usize,
    left: Option<Aligned<f32>>,
    right: Option<Aligned<f32>>,
}

impl Block {
    fn pack(&mut self, isa: Isa, pool: &Pool, x: &[f32], k: usize) {
        let (mr, _) = tile_shape(isa);
        self.tokens = x.len() / k;
        for (buffer, width) in [(&mut self.left, mr), (&mut self.right, LANES)] {
            let packed = Aligned::at_least(buffer, 0.0, k.next_multiple_of(width) * self.tokens);
            pack_columns(pool, x, k, width, packed);
        }
    }
}

/// `[tokens, k]` to `[k/width][tokens][width]`; columns beyond k keep what was there.
pub(super) fn pack_columns(pool: &Pool, x: &[f32], k: usize, width: usize, packed: &mut [f32]) {
    let tokens = x.len() / k;
    pool.for_each_chunk(packed, width * tokens, |panel, packed| {
        let columns = panel * width..((panel + 1) * width).min(k);
        match if columns.len() == width { width } else { 0 } {
            LANES => copy_columns::<LANES>(x, k, columns.start, packed),
            12 => copy_columns::<12>(x, k, columns.start, packed),
            6 => copy_columns::<6>(x, k, columns.start, packed),
            _ => {
                for (row, packed) in x.chunks_exact(k).zip(packed.chunks_exact_mut(width)) {
                    packed[..columns.len()].copy_from_slice(&row[columns.clone()]);
                }
            }
        }
    });
}

/// A whole panel: copies whose length the compiler knows.
fn copy_columns<const WIDTH: usize>(x: &[f32], k: usize, first: usize, packed: &mut [f32]) {
    for (row, packed) in x.chunks_exact(k).zip(packed.as_chunks_mut::<WIDTH>().0) {
        packed.copy_from_slice(&row[first..first + WIDTH]);
    }
}

impl Block {
    /// The right operand's panels of `columns`, the first of a panel; none where there are no columns.
    fn right_panels(&self, columns: Range<usize>) -> &[f32] {
        let panels = columns.start / LANES..columns.end.max(columns.start).div_ceil(LANES);
        match &self.right {
            Some(right) if !columns.is_empty() => {
                &right[panels.start * LANES * self.tokens..panels.end * LANES * self.tokens]
            }
            _ => &[],
        }
    }
}

/// The largest tasks of which a matrix of `shape` gives at least so many.
pub(super) fn task_shape(shape: (usize, usize), least: usize) -> (usize, usize) {
    let [large, small] = TASKS;
    let count = shape.0.div_ceil(large.0) * shape.1.div_ceil(large.1);
    if count >= least { large } else { small }
}

struct Product<'a> {
    isa: Isa,
    k: usize,
    blocks: &'a [Block],
    gram: &'a SharedSlice<'a, f32>,
}

impl Product<'_> {
    fn run(&self, pool: &Pool) {
        // About half the tasks lie above the diagonal.
        let shape = task_shape((self.k, self.k), 8 * pool.num_threads());
        let (row_blocks, column_blocks) = (self.k.div_ceil(shape.0), self.k.div_ceil(shape.1));
        pool.run(row_blocks * column_blocks, |task| {
            // The longest rows first; what lies above the diagonal has nothing to do.
            let row = (row_blocks - 1 - task / column_blocks) * shape.0;
            let column = task % column_blocks * shape.1;
            self.part(
                row..(row + shape.0).min(self.k),
                column..(column + shape.1).min(self.k),
            );
        });
    }

    /// Adds all blocks to `rows` x `columns`, as far as they lie on or below the diagonal.
    fn part(&self, rows: Range<usize>, columns: Range<usize>) {
        let (mr, vectors) = tile_shape(self.isa);
        let mut sums = [0.0; MAX_TILE];
        for block in self.blocks {
            for column in (columns.start..columns.end.min(rows.end)).step_by(vectors * LANES) {
                let width = (columns.end - column).min(vectors * LANES);
                // The first row tile that reaches this column.
                let first = rows.start + column.saturating_sub(rows.start) / mr * mr;
                let tiles = (rows.end - first).div_ceil(mr);
                let next = column + vectors * LANES..(column + 2 * vectors * LANES).min(columns.end);
                for (tile_idx, row) in (first..rows.end).step_by(mr).enumerate() {
                    prefetch(part_of(block.right_panels(next.clone()), tile_idx, tiles));
                    self.tile(block, row, column, width.div_ceil(LANES), &mut sums);
                    self.add(row..(row + mr).min(rows.end), column..column + width, &sums);
                }
            }
        }
    }

    /// Sums over the block's tokens for `mr` rows and some vectors of columns.
    fn tile(&self, block: &Block, row: usize, column: usize, vectors: usize, sums: &mut [f32; MAX_TILE]) {
        let ((mr, _), tokens) = (tile_shape(self.isa), block.tokens);
        let (Some(left), Some(right)) = (&block.left, &block.right) else {
            return;
        };
        let tile = FloatTile {
            a: left[row * tokens..][..mr * tokens].as_ptr(),
            a_row: 1,
            a_k: mr,
            b: right[column * tokens..][..vectors * LANES * tokens].as_ptr(),
            b_vector: LANES * tokens,
            b_k: LANES,
            k: tokens,
            c: sums.as_mut_ptr(),
            c_row: 2 * LANES,
            c_vector: LANES,
            from_zero: true,
        };
        // SAFETY: both panels were cut to their length above; `sums` holds the largest tile.
        unsafe { multiply(self.isa, tile, mr, vectors) };
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
