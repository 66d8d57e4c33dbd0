//! Sums over tokens of what two inputs have in common: `sums += x^T y`, without turning rows into columns.
//!
//! Both operands are copied as a Gram matrix's are (`gram.rs`): `[K/mr][tokens][mr]` left, `[N/16][tokens][16]` right. A task owns
//! some rows and columns of the sums and adds up all tokens for them in a buffer of its own (second-level cache), so that the
//! sums are read and written once a call. Each output is one chain over the tokens from zero.

use std::cell::RefCell;
use std::ops::Range;

use dualgrain_threads::{Pool, SharedSlice};

use super::gram::{TASKS, pack_columns, task_shape};
use super::lanes::LANES;
use super::tile::{FloatTile, multiply, tile_shape};
use crate::isa::Isa;
use crate::memory::aligned::Aligned;
use crate::memory::prefetch::{part_of, prefetch};
use crate::rows::elementwise;

/// Tokens whose slice of the right operand stays in the first-level cache.
const SLICE_TOKENS: usize = 256;

thread_local! {
    /// The calling thread's copies of both operands, kept for its next call.
    static OPERANDS: RefCell<[Option<Aligned<f32>>; 2]> = const { RefCell::new([None, None]) };
    /// What a thread's task has added up.
    static TASK_SUMS: RefCell<Option<Aligned<f32>>> = const { RefCell::new(None) };
}

/// `sums[K,N] += x^T y` for `x` `[tokens,K]` and `y` `[tokens,N]`.
pub(crate) fn accumulate(
    isa: Isa,
    pool: &Pool,
    sums: &mut [f32],
    (x, k): (&[f32], usize),
    (y, n): (&[f32], usize),
) {
    let tokens = x.len() / k;
    assert_eq!(
        (x.len(), y.len(), sums.len()),
        (tokens * k, tokens * n, k * n),
        "sums {k}x{n} over {tokens} tokens"
    );
    let (mr, _) = tile_shape(isa);
    OPERANDS.with_borrow_mut(|[left, right]| {
        let left = Aligned::at_least(left, 0.0, k.next_multiple_of(mr) * tokens);
        pack_columns(pool, x, k, mr, left);
        let right = Aligned::at_least(right, 0.0, n.next_multiple_of(LANES) * tokens);
        pack_columns(pool, y, n, LANES, right);
        let (rows, columns) = task_shape((k, n), 4 * pool.num_threads());
        let cross = Cross {
            isa,
            tokens,
            n,
            left,
            right,
            sums: &SharedSlice::new(sums),
        };
        let column_blocks = n.div_ceil(columns);
        pool.run(k.div_ceil(rows) * column_blocks, |task| {
            let (row, column) = (task / column_blocks * rows, task % column_blocks * columns);
            cross.part(row..(row + rows).min(k), column..(column + columns).min(n));
        });
    });
}

struct Cross<'a> {
    isa: Isa,
    tokens: usize,
    n: usize,
    left: &'a [f32],
    right: &'a [f32],
    sums: &'a SharedSlice<'a, f32>,
}

impl Cross<'_> {
    /// Adds all tokens to `rows` x `columns`.
    fn part(&self, rows: Range<usize>, columns: Range<usize>) {
        if self.tokens == 0 {
            return;
        }
        let width = columns.len().next_multiple_of(LANES);
        TASK_SUMS.with_borrow_mut(|own| {
            let own = Aligned::at_least(own, 0.0, TASKS[0].0 * TASKS[0].1);
            for start in (0..self.tokens).step_by(SLICE_TOKENS) {
                let tokens = start..(start + SLICE_TOKENS).min(self.tokens);
                self.slice(&rows, &columns, tokens, (own, width));
            }
            for (row, own) in rows.zip(own.chunks_exact(width)) {
                let start = row * self.n + columns.start;
                // SAFETY: this task alone touches these rows and columns.
                let sums = unsafe { self.sums.range(start..start + columns.len()) };
                elementwise::add(self.isa, sums, &own[..columns.len()]);
            }
        });
    }

    /// Adds some tokens to `own` `[rows][width]`; the first ones begin at zero.
    fn slice(
        &self,
        rows: &Range<usize>,
        columns: &Range<usize>,
        tokens: Range<usize>,
        (own, width): (&mut [f32], usize),
    ) {
        let (mr, vectors) = tile_shape(self.isa);
        let tiles = rows.len().div_ceil(mr);
        for column in columns.clone().step_by(vectors * LANES) {
            let next = column + vectors * LANES;
            let num_vectors = (columns.end.min(next) - column).div_ceil(LANES);
            for (tile_idx, row) in rows.clone().step_by(mr).enumerate() {
                for panel in (next..columns.end.min(next + vectors * LANES)).step_by(LANES) {
                    prefetch(part_of(self.panel(panel, &tokens), tile_idx, tiles));
                }
                let left = &self.left[row * self.tokens + tokens.start * mr..][..mr * tokens.len()];
                let tile = FloatTile {
                    a: left.as_ptr(),
                    a_row: 1,
                    a_k: mr,
                    b: self.panel(column, &tokens).as_ptr(),
                    b_vector: LANES * self.tokens,
                    b_k: LANES,
                    k: tokens.len(),
                    c: own[(row - rows.start) * width + column - columns.start..].as_mut_ptr(),
                    c_row: width,
                    c_vector: LANES,
                    from_zero: tokens.start == 0,
                };
                // SAFETY: the left panel was cut to its length; the right ones hold all tokens of `num_vectors` panels; `own` has
                // the rows of whole tiles, for a task's are multiples of every tile's.
                unsafe { multiply(self.isa, tile, mr, num_vectors) };
            }
        }
    }

    /// Some tokens of the right operand's panel that begins at `column`.
    fn panel(&self, column: usize, tokens: &Range<usize>) -> &[f32] {
        &self.right[column * self.tokens + tokens.start * LANES..][..tokens.len() * LANES]
    }
}
