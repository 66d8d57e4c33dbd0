//! Causal attention over the paged cache, exact softmax: who computes what.
//!
//! A task is one kv head and a few neighbouring tokens; its rows are all queries that read that head (the whole
//! group of each token), so every key and value loaded serves up to 24 queries. Pages come in order, a few at a time, so
//! that their scores stay in the first-level cache: scores, numerators of the softmax, output += numerators * values. Each
//! row keeps its sums of a span of 512 positions and of the spans before (`naive/attention.rs`), so the result does not depend
//! on how a prompt was cut into steps: pages and spans are counted from position 0, and a masked key adds an exact zero.
//!
//! The two products of a page are float (`float.rs`) or integer (`int8/`).

use std::cell::RefCell;
use std::ops::Range;

use dualgrain_device::naive::SPAN_TOKENS;
use dualgrain_device::{AttentionParams, CacheShape, Columns, HostStep, PAGE_TOKENS};
use dualgrain_threads::{Pool, SharedSlice};

use super::job::{Job, Page, Products};
use super::scratch::{SPAN_PAGES, Scratch, pages_at_hand};
use crate::isa::Isa;
use crate::kv_cache::element::padded_dim;
use crate::kv_cache::storage::{Cache, Store};
use crate::tensor::matrix::Matrix;

/// Queries a task aims for: two tiles of 12 or four of 6.
const TASK_QUERIES: usize = 24;

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch::new()) };
}

/// `out[M, num_heads * head_dim]`, which has that shape already, = attention of `x[:, queries]` over `layer` of the cache.
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
    tokens: Range<usize>,
    kv_head: usize,
    /// First key any of them sees, rounded down to a page.
    base: usize,
    /// One past the last key any of them sees.
    end: usize,
    /// Keys that all of them see.
    seen_by_all: Range<usize>,
}

impl Run {
    /// Positions of the run in each span of them.
    fn spans(&self) -> impl Iterator<Item = Range<usize>> {
        let first = self.base / SPAN_TOKENS * SPAN_TOKENS;
        let starts = (first..self.end).step_by(SPAN_TOKENS);
        starts.map(|start| start.max(self.base)..(start + SPAN_TOKENS).min(self.end))
    }
}

impl Job<'_> {
    /// Splits a task's tokens where the sequence changes.
    fn tokens(&self, products: &impl Products, tokens: Range<usize>, kv_head: usize) {
        let sequences = &self.step.sequences()[tokens.clone()];
        let mut start = tokens.start;
        for same in sequences.chunk_by(|a, b| a == b) {
            let tokens = start..start + same.len();
            start = tokens.end;
            // Positions ascend.
            let (first, last) = (self.keys_of(tokens.start), self.keys_of(tokens.end - 1));
            let run = Run {
                tokens,
                kv_head,
                base: first.0 / PAGE_TOKENS * PAGE_TOKENS,
                end: last.1 + 1,
                seen_by_all: last.0..first.1 + 1,
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
        scratch.begin(rows, dim, padded_dim(dim));
        self.collect_queries(run, &mut scratch.queries);
        products.prepare(self, scratch);
        for span in run.spans() {
            scratch.softmax.begin_span(rows);
            for start in span.clone().step_by(pages_at_hand(rows) * PAGE_TOKENS) {
                self.pages(products, run, start..span.end, start == span.start, scratch);
            }
            scratch.end_span(self.isa, span.start == run.base);
        }
        if let Some(sinks) = &self.params.sinks {
            scratch.add_sinks(self.isa, &sinks[run.kv_head * self.group..][..self.group]);
        }
        self.write_outputs(run, scratch);
    }

    /// The first pages of `positions`, as many as are taken at a time.
    fn pages(
        &self,
        products: &impl Products,
        run: &Run,
        positions: Range<usize>,
        is_first: bool,
        scratch: &mut Scratch,
    ) {
        let mut pages = [Page::default(); SPAN_PAGES];
        let starts = positions
            .clone()
            .step_by(PAGE_TOKENS)
            .take(pages_at_hand(scratch.rows));
        let num_pages = starts.len();
        scratch.begin_pages(num_pages);
        for ((place, start), page) in starts.enumerate().zip(&mut pages) {
            *page = self.page(run, start, place);
            page.is_first = is_first && place == 0;
            products.score(self, page, scratch);
            self.mask(run, page, &mut scratch.scores[page.rows(scratch.rows)]);
        }
        let pages = &pages[..num_pages];
        products.weigh(self, pages, scratch);
        for page in pages {
            products.add_values(self, page, scratch);
        }
    }

    /// Gives what a row does not see of a page the score of negative infinity.
    fn mask(&self, run: &Run, page: &Page, scores: &mut [[f32; PAGE_TOKENS]]) {
        if run.seen_by_all.start <= page.start && page.start + PAGE_TOKENS <= run.seen_by_all.end {
            return;
        }
        for (token, scores) in run.tokens.clone().zip(scores.chunks_exact_mut(self.group)) {
            let (first, last) = self.keys_of(token);
            let in_page = |position: usize| position.saturating_sub(page.start).min(PAGE_TOKENS);
            let (first, end) = (in_page(first), in_page(last + 1));
            if (first, end) != (0, PAGE_TOKENS) {
                for scores in scores {
                    scores[..first].fill(f32::NEG_INFINITY);
                    scores[end..].fill(f32::NEG_INFINITY);
                }
            }
        }
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
    fn page(&self, run: &Run, start: usize, place: usize) -> Page {
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
            place,
            is_first: false,
            keys: (run.end - start).min(PAGE_TOKENS),
        }
    }

    fn write_outputs(&self, run: &Run, scratch: &Scratch) {
        let dim = self.cache.shape.head_dim;
        let width = self.params.num_heads * dim;
        let rows = scratch.totals.chunks_exact(padded_dim(dim));
        for (row, (totals, sum)) in rows.zip(scratch.softmax.sums()).enumerate() {
            let token = run.tokens.start + row / self.group;
            let head = run.kv_head * self.group + row % self.group;
            let start = token * width + head * dim;
            // SAFETY: this task alone writes this head of this token.
            let out = unsafe { self.out.range(start..start + dim) };
            let inv_sum = 1.0 / sum;
            for (out, v) in out.iter_mut().zip(totals) {
                // Zeros become positive: a page that only other rows see leaves no sign either.
                *out = v * inv_sum + 0.0;
            }
        }
    }
}
