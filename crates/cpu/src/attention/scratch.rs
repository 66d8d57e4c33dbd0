//! Buffers of a thread.

use dualgrain_device::PAGE_TOKENS;
use dualgrain_device::naive::SPAN_TOKENS;

use super::softmax::Softmax;
use crate::isa::Isa;

pub(super) const SPAN_PAGES: usize = SPAN_TOKENS / PAGE_TOKENS;

/// Pages whose scores are at hand together. What stands between the products is computed for all of them side by side: a page at a
/// time took 6 % longer with 24 rows and 35 % with one row (AVX-512). Scores of 96 rows are 24 KB.
pub(super) fn pages_at_hand(rows: usize) -> usize {
    (96 / rows).clamp(1, SPAN_PAGES)
}

/// Makes room for `len` elements once, so that a longer context allocates nothing later.
fn reserve<T>(buffer: &mut Vec<T>, len: usize) {
    buffer.reserve(len.saturating_sub(buffer.len()));
}

/// A thread's buffers; they grow to the largest task once.
pub(super) struct Scratch {
    /// Rows of the task: its queries.
    pub(super) rows: usize,
    /// `[rows, head_dim]`
    pub(super) queries: Vec<f32>,
    /// `[pages, rows]`: scores of the keys of some pages, then softmax numerators.
    pub(super) scores: Vec<[f32; PAGE_TOKENS]>,
    pub(super) softmax: Softmax,
    /// `[rows, padded head_dim]` of the present page, as float products give them.
    pub(super) page_outputs: Vec<f32>,
    /// The same of the present span.
    pub(super) outputs: Vec<f32>,
    /// The same of the spans before it, in the end of all.
    pub(super) totals: Vec<f32>,
    /// What integer products multiply.
    pub(super) codes: Codes,
}

impl Scratch {
    pub(super) const fn new() -> Self {
        Self {
            rows: 0,
            queries: Vec::new(),
            scores: Vec::new(),
            softmax: Softmax::new(),
            page_outputs: Vec::new(),
            outputs: Vec::new(),
            totals: Vec::new(),
            codes: Codes::new(),
        }
    }

    /// Room for `rows` queries of `dim` elements, whose outputs have `padded_dim`.
    pub(super) fn begin(&mut self, rows: usize, dim: usize, padded_dim: usize) {
        self.rows = rows;
        self.queries.resize(rows * dim, 0.0);
        self.outputs.resize(rows * padded_dim, 0.0);
        self.totals.resize(rows * padded_dim, 0.0);
        let len = pages_at_hand(rows) * rows;
        reserve(&mut self.scores, len);
        self.softmax.reserve(rows, len);
    }

    /// Room for the scores of `pages` pages.
    pub(super) fn begin_pages(&mut self, pages: usize) {
        self.scores.resize(pages * self.rows, [0.0; PAGE_TOKENS]);
        self.softmax.begin_pages(pages * self.rows);
    }

    /// Adds the present span to those before it.
    pub(super) fn end_span(&mut self, isa: Isa, is_first: bool) {
        if is_first {
            std::mem::swap(&mut self.totals, &mut self.outputs);
            self.softmax.take_first_span();
        } else {
            let dim = self.outputs.len() / self.rows;
            self.softmax.join_span(isa, &self.outputs, &mut self.totals, dim);
        }
    }

    /// Adds the sinks of a group's heads to all spans.
    pub(super) fn add_sinks(&mut self, isa: Isa, sinks: &[f32]) {
        let dim = self.totals.len() / self.rows;
        self.softmax.join_sinks(isa, sinks, &mut self.totals, dim);
    }
}

/// Quantized rows of a task.
pub(super) struct Codes {
    /// `[head_dim / 4][rows][4]`
    pub(super) queries: Vec<i8>,
    /// `[rows]`
    pub(super) query_scales: Vec<f32>,
    /// Sum of each query's codes: keys are stored as code + 128.
    pub(super) query_sums: Vec<i32>,
    /// `[pages, rows]`
    pub(super) weights: Vec<[i8; PAGE_TOKENS]>,
    /// What products of weights are multiplied by as they join the span's outputs: `[pages, rows]`.
    pub(super) weight_scales: Vec<f32>,
    pub(super) inv_weight_scales: Vec<f32>,
}

impl Codes {
    const fn new() -> Self {
        Self {
            queries: Vec::new(),
            query_scales: Vec::new(),
            query_sums: Vec::new(),
            weights: Vec::new(),
            weight_scales: Vec::new(),
            inv_weight_scales: Vec::new(),
        }
    }

    /// Room for `rows` queries of `dim` codes.
    pub(super) fn begin(&mut self, rows: usize, dim: usize) {
        self.queries.resize(rows * dim, 0);
        self.query_scales.resize(rows, 0.0);
        self.query_sums.resize(rows, 0);
        let len = pages_at_hand(rows) * rows;
        reserve(&mut self.weights, len);
        reserve(&mut self.weight_scales, len);
        reserve(&mut self.inv_weight_scales, len);
    }

    /// Room for the weights of as many rows of pages.
    pub(super) fn begin_pages(&mut self, len: usize) {
        self.weights.resize(len, [0; PAGE_TOKENS]);
        self.weight_scales.resize(len, 0.0);
        self.inv_weight_scales.resize(len, 0.0);
    }
}
