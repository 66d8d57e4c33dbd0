//! Causal attention over the paged cache, exact softmax: who computes what.
//!
//! A task is one kv head and a few neighbouring tokens; its rows are all queries that read that head (the whole
//! group of each token), so every key and value loaded serves up to 24 queries. Per page: scores; per row: masked
//! softmax over all its keys; per page: output += weights * values. Scores of all keys are kept (24 rows x context in
//! the second-level cache), so the result does not depend on how a prompt was cut into steps: each output is one chain
//! over key positions (or pages of them) in order, and a masked key adds an exact zero.
//!
//! The two products of a page are float (`float.rs`) or integer (`int8/`).

use std::cell::RefCell;

use dualgrain_device::{AttentionParams, CacheShape, Columns, HostStep, PAGE_TOKENS};
use dualgrain_threads::{Pool, SharedSlice};

use super::job::{Job, Page, Products};
use super::scratch::Scratch;
use super::softmax::softmax;
use crate::float::lanes::LANES;
use crate::isa::Isa;
use crate::kv_cache::element::padded_dim;
use crate::kv_cache::storage::{Cache, Store};
use crate::tensor::matrix::Matrix;

/// Queries a task aims for: two tiles of 12 or four of 6.
const TASK_QUERIES: usize = 24;

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch::new()) };
}

/// `out[M, num_heads * head_dim]` = attention of `x[:, queries]` over `layer` of the cache.
#[allow(clippy::too_many_arguments, reason = "the operation's own arguments")]
pub(crate) fn attention(
    (isa, pool): (Isa, &Pool),
    out: &mut Matrix,
    x: &Matrix,
    queries: Columns,
    cache: &Cache,
    layer: usize,
    params: &AttentionParams,
    step: &HostStep,
) {
    let shape = cache.shape;
    check_shapes(x, &queries, shape, layer, params, step);
    out.columns = queries.len();
    out.resize(x.rows);
    let group = params.num_heads / shape.num_kv_heads;
    let tokens = TASK_QUERIES.div_ceil(group);
    let out = SharedSlice::new(out.values_mut());
    let job = Job {
        isa,
        out: &out,
        x,
        queries,
        cache,
        layer,
        params,
        step,
        group,
        fixed_scales: (
            cache.key_scales.of_layer(layer),
            cache.value_scales.of_layer(layer),
        ),
    };
    // Every query meets at most as many keys as the largest position has before it.
    let longest = step
        .positions()
        .iter()
        .max()
        .map_or(0, |&position| position as usize + 1);
    let operations = x.rows * longest * params.num_heads * shape.head_dim / 8;
    pool.run_if_worth(operations, x.rows.div_ceil(tokens) * shape.num_kv_heads, |task| {
        // Neighbouring tasks share tokens; the last tokens see most keys and go first.
        let tile = x.rows.div_ceil(tokens) - 1 - task / shape.num_kv_heads;
        let kv_head = task % shape.num_kv_heads;
        let range = tile * tokens..((tile + 1) * tokens).min(x.rows);
        match &cache.store {
            Store::F32(planes) => job.tokens(planes, range, kv_head),
            Store::F16(planes) => job.tokens(planes, range, kv_head),
            Store::Int8(planes) => job.tokens(planes, range, kv_head),
        }
    });
}

/// Mistakes of the caller.
fn check_shapes(
    x: &Matrix,
    queries: &Columns,
    shape: CacheShape,
    layer: usize,
    params: &AttentionParams,
    step: &HostStep,
) {
    let (heads, kv_heads) = (params.num_heads, shape.num_kv_heads);
    assert_eq!(queries.len(), heads * shape.head_dim, "query columns");
    assert!(
        heads.is_multiple_of(kv_heads),
        "{heads} query heads over {kv_heads} kv heads"
    );
    assert!(layer < shape.num_layers, "layer {layer} of {}", shape.num_layers);
    let tokens = (step.num_tokens(), step.sequences().len());
    assert_eq!(tokens, (x.rows, x.rows), "tokens of the step");
}

/// Tokens of one sequence in a task and the keys they see.
struct Run {
    tokens: std::ops::Range<usize>,
    kv_head: usize,
    /// First key any of them sees, rounded down to a page.
    base: usize,
    /// One past the last key any of them sees.
    end: usize,
}

impl Job<'_> {
    /// Splits a task's tokens where the sequence changes.
    fn tokens(&self, products: &impl Products, tokens: std::ops::Range<usize>, kv_head: usize) {
        let sequences = &self.step.sequences()[tokens.clone()];
        let mut start = tokens.start;
        for same in sequences.chunk_by(|a, b| a == b) {
            let tokens = start..start + same.len();
            start = tokens.end;
            let seen = tokens.clone().map(|token| self.keys_of(token));
            let (first, last) = seen.fold((usize::MAX, 0), |(first, last), (f, l)| {
                (first.min(f), last.max(l))
            });
            let run = Run {
                tokens,
                kv_head,
                base: first / PAGE_TOKENS * PAGE_TOKENS,
                end: last + 1,
            };
            SCRATCH.with_borrow_mut(|scratch| self.run(products, &run, scratch));
        }
    }

    /// First and last key position a token sees.
    fn keys_of(&self, token: usize) -> (usize, usize) {
        let last = self.step.positions()[token] as usize;
        let first = self
            .params
            .sliding_window
            .map_or(0, |window| (last + 1).saturating_sub(window.max(1)));
        (first, last)
    }

    fn run(&self, products: &impl Products, run: &Run, scratch: &mut Scratch) {
        let dim = self.cache.shape.head_dim;
        let rows = run.tokens.len() * self.group;
        let stride = (run.end - run.base).next_multiple_of(PAGE_TOKENS) + LANES;
        scratch.stride = stride;
        scratch.queries.resize(rows * dim, 0.0);
        scratch.resize_scores(rows, self.step.context_tokens());
        scratch.outputs.resize(rows * padded_dim(dim), 0.0);
        scratch.inv_sums.resize(rows, 0.0);
        self.collect_queries(run, &mut scratch.queries);
        products.prepare(self, scratch);
        for start in (run.base..run.end).step_by(PAGE_TOKENS) {
            products.score(self, &self.page(run, start), scratch);
        }
        for row in 0..rows {
            let (first, last) = self.keys_of(run.tokens.start + row / self.group);
            let scores = &mut scratch.scores[row * stride..][..run.end - run.base];
            scratch.inv_sums[row] = 1.0 / softmax(self.isa, scores, first - run.base, last - run.base);
        }
        for start in (run.base..run.end).step_by(PAGE_TOKENS) {
            products.add_values(self, &self.page(run, start), scratch);
        }
        self.write_outputs(run, scratch);
    }

    /// Query rows in the order token, head of the group.
    fn collect_queries(&self, run: &Run, queries: &mut [f32]) {
        let width = self.group * self.cache.shape.head_dim;
        for (token, queries) in run.tokens.clone().zip(queries.chunks_exact_mut(width)) {
            let start = self.queries.start + run.kv_head * width;
            queries.copy_from_slice(&self.x.row(token)[start..start + width]);
        }
    }

    /// The head's page that holds position `start`.
    fn page(&self, run: &Run, start: usize) -> Page {
        let table = self.step.page_table(run.tokens.start);
        let page = table[start / PAGE_TOKENS] as usize;
        assert!(
            page < self.cache.shape.num_pages,
            "page {page} of {}",
            self.cache.shape.num_pages
        );
        Page {
            kv_head: run.kv_head,
            head_page: self.cache.head_page(self.layer, page, run.kv_head),
            start,
            offset: start - run.base,
            keys: (run.end - start).min(PAGE_TOKENS),
        }
    }

    fn write_outputs(&self, run: &Run, scratch: &Scratch) {
        let dim = self.cache.shape.head_dim;
        let width = self.params.num_heads * dim;
        let rows = scratch
            .outputs
            .chunks_exact(padded_dim(dim))
            .zip(&scratch.inv_sums);
        for (row, (output, inv_sum)) in rows.enumerate() {
            let token = run.tokens.start + row / self.group;
            let head = run.kv_head * self.group + row % self.group;
            let start = token * width + head * dim;
            // SAFETY: this task alone writes this head of this token.
            let out = unsafe { self.out.range(start..start + dim) };
            for (out, v) in out.iter_mut().zip(output) {
                *out = v * inv_sum;
            }
        }
    }
}
