//! A product cut into tasks for the threads.
//!
//! Few tokens: a task streams its panels once past all tokens; only reading the weights costs. Many tokens: a task
//! owns a block of tokens that stays in the second-level cache and some panels; it widens a pair of panels and passes
//! all its tokens over them.

use dualgrain_threads::{Pool, Stream};

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::choose::widens;
use super::epilogue::Sink;
use super::layout::PANEL;
use super::packed::{Codes, PackedInt};
use super::task::{AMX_TASK_ROWS, MAX_TASK_PANELS, TASK_ROWS, Task};
use crate::isa::Isa;
use crate::tensor::quantized::{CodeRows, FEW_ROWS};

/// `d[M,N]` (or the sums) of `a[M,K]` and the weights. Threads that wait during and after it read ahead in `next`.
///
/// # Panics
/// When the shapes do not fit, or `a` was made for an instruction set that lays codes out in another way.
pub(crate) fn gemm(
    isa: Isa,
    pool: &Pool,
    a: CodeRows<'_>,
    weights: &PackedInt,
    next: Option<Stream>,
    sink: &Sink<'_>,
) {
    check(isa, a, weights);
    let num_panels = weights.num_panels();
    let row_blocks = row_blocks(a);
    let task_panels = panels_per_task(pool, num_panels * row_blocks);
    let num_tasks = row_blocks * num_panels.div_ceil(task_panels);
    // Many tokens multiply much longer than they read.
    let next = next.filter(|_| a.rows <= FEW_ROWS).unwrap_or_default();
    pool.run_in_runs(operations(a.rows, weights), num_tasks, next, |task| {
        run_task(isa, a, weights, sink, (task, task_panels));
    });
}

/// # Panics
/// As [`gemm`].
pub(super) fn check(isa: Isa, a: CodeRows<'_>, weights: &PackedInt) {
    assert_eq!(a.columns, weights.k(), "columns of A and K of the weights");
    assert!(
        a.is_laid_out_for(isa),
        "activations are laid out for {}, the product is one of {}",
        a.isa.name(),
        isa.name()
    );
}

/// Reading a weight costs about half an operation, a token's product with it a 32nd.
pub(super) fn operations(rows: usize, weights: &PackedInt) -> usize {
    weights.n() * weights.k() / 2 * (16 + rows) / 16
}

/// Blocks of tokens that tasks own.
pub(super) fn row_blocks(a: CodeRows<'_>) -> usize {
    a.rows.div_ceil(task_rows(a))
}

fn task_rows(a: CodeRows<'_>) -> usize {
    if a.is_in_amx_tiles() {
        AMX_TASK_ROWS
    } else {
        TASK_ROWS
    }
}

/// Runs one of a product's tasks of `task_panels` panels each.
pub(super) fn run_task(
    isa: Isa,
    a: CodeRows<'_>,
    weights: &PackedInt,
    sink: &Sink<'_>,
    (task, task_panels): (usize, usize),
) {
    let (row_blocks, task_rows) = (row_blocks(a), task_rows(a));
    let (row_block, first) = (task % row_blocks, task / row_blocks * task_panels);
    let task = Task {
        isa,
        a,
        weights,
        sink,
        rows: row_block * task_rows..((row_block + 1) * task_rows).min(a.rows),
    };
    let panels = first..(first + task_panels).min(weights.num_panels());
    #[cfg(target_arch = "x86_64")]
    if a.is_in_amx_tiles() {
        return amx::run(&task, panels);
    }
    task.run(panels);
}

/// A multiple of four, so that tiles of several panels have work; four tasks a thread even the load out.
pub(super) fn panels_per_task(pool: &Pool, panels_and_blocks: usize) -> usize {
    (panels_and_blocks / (4 * pool.num_threads()))
        .next_multiple_of(4)
        .clamp(4, MAX_TASK_PANELS)
}

/// The codes as a product of few tokens reads them, a task at a time.
pub(crate) fn stream(weights: &PackedInt, pool: &Pool) -> Stream {
    let num_panels = weights.num_panels();
    let task_panels = panels_per_task(pool, num_panels);
    let (codes, panel_bytes) = match weights.codes() {
        Codes::W4 { q, .. } => (q, PANEL * weights.padded_k() / 2),
        Codes::W8(w8) => (w8, PANEL * weights.padded_k()),
    };
    Stream {
        start: codes.as_ptr().addr(),
        chunk_bytes: task_panels * panel_bytes,
        num_chunks: num_panels.div_ceil(task_panels),
    }
}

/// Whether many tokens of `a` can be gated on the way out: weights are widened panel by panel, in any order.
pub(crate) fn can_gate(isa: Isa, a: CodeRows<'_>, weights: &PackedInt) -> bool {
    weights.has_four_bits() && widens(isa, a.rows) && Sink::can_gate(weights.n())
}
