//! The products of a mixture's experts, each with the rows that go to it, as one job of the threads.
//!
//! Few rows go to each of many experts: one product after the other would have the threads meet for each of them, and the last
//! tasks of each would leave threads idle. So the tasks of all products are counted through.

use dualgrain_threads::{Pool, SharedSlice, Stream};

use super::epilogue::Sink;
use super::packed::PackedInt;
use super::product::{check, operations, panels_per_task, row_blocks, run_task};
use crate::isa::Isa;
use crate::tensor::quantized::{CodeRows, FEW_ROWS};

/// An expert's rows and weights, and where its outputs begin.
#[derive(Clone, Copy)]
pub(crate) struct ExpertProduct<'a> {
    pub(crate) a: CodeRows<'a>,
    pub(crate) weights: &'a PackedInt,
    /// The first of its rows in the output.
    pub(crate) first_row: usize,
}

/// `d[rows, N]` of all experts. Threads that wait during and after it read ahead in `next`.
///
/// # Panics
/// As for a product.
pub(crate) fn gemm_experts(
    isa: Isa,
    pool: &Pool,
    products: &[ExpertProduct<'_>],
    next: Option<Stream>,
    d: &SharedSlice<'_, f32>,
) {
    products
        .iter()
        .for_each(|product| check(isa, product.a, product.weights));
    let panels = |product: &ExpertProduct<'_>| product.weights.num_panels() * row_blocks(product.a);
    let task_panels = panels_per_task(pool, products.iter().map(panels).sum());
    let tasks = |product: &ExpertProduct<'_>| {
        row_blocks(product.a) * product.weights.num_panels().div_ceil(task_panels)
    };
    let work = products
        .iter()
        .map(|product| operations(product.a.rows, product.weights))
        .sum();
    let num_tasks = products.iter().map(tasks).sum();
    // Many tokens multiply much longer than they read.
    let is_few = products.iter().all(|product| product.a.rows <= FEW_ROWS);
    let next = next.filter(|_| is_few).unwrap_or_default();
    pool.run_in_runs(work, num_tasks, next, |mut task| {
        for product in products {
            let of_product = tasks(product);
            if task < of_product {
                let n = product.weights.n();
                let rows = product.first_row * n..(product.first_row + product.a.rows) * n;
                let sink = Sink::Output(d.part(rows));
                return run_task(isa, product.a, product.weights, &sink, (task, task_panels));
            }
            task -= of_product;
        }
    });
}
