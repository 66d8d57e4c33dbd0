//! Buffers of a thread.

use dualgrain_device::PAGE_TOKENS;

use crate::float::lanes::LANES;

/// A thread's buffers; they grow to the longest context once.
pub(super) struct Scratch {
    /// `[queries, head_dim]`
    pub(super) queries: Vec<f32>,
    /// `[queries, keys]`: scores, then softmax numerators.
    pub(super) scores: Vec<f32>,
    /// Elements of a row of `scores`.
    pub(super) stride: usize,
    /// `[queries, padded head_dim]`
    pub(super) outputs: Vec<f32>,
    /// `[queries]`
    pub(super) inv_sums: Vec<f32>,
    /// What integer products multiply.
    pub(super) codes: Codes,
}

impl Scratch {
    pub(super) const fn new() -> Self {
        Self {
            queries: Vec::new(),
            scores: Vec::new(),
            stride: 0,
            outputs: Vec::new(),
            inv_sums: Vec::new(),
            codes: Codes::new(),
        }
    }

    /// Room for `rows` of the present stride, and for as many over a whole context, so that a sequence which grows from
    /// page to page allocates once.
    pub(super) fn resize_scores(&mut self, rows: usize, context: usize) {
        let len = rows * self.stride;
        let longest = rows.saturating_mul(context.saturating_add(LANES)).max(len);
        if self.scores.capacity() < len {
            // What was there means nothing, and one allocation suffices.
            self.scores = Vec::with_capacity(longest);
        }
        self.scores.resize(len, 0.0);
    }
}

/// Quantized rows of a task.
pub(super) struct Codes {
    /// `[head_dim / 4][queries][4]`
    pub(super) queries: Vec<i8>,
    /// `[queries]`
    pub(super) query_scales: Vec<f32>,
    /// Sum of each query's codes: keys are stored as code + 128.
    pub(super) query_sums: Vec<i32>,
    /// Weights of a page.
    pub(super) weights: Vec<[i8; PAGE_TOKENS]>,
    /// `[queries]`
    pub(super) weight_scales: Vec<f32>,
    pub(super) inv_weight_scales: Vec<f32>,
}

impl Codes {
    pub(super) const fn new() -> Self {
        Self {
            queries: Vec::new(),
            query_scales: Vec::new(),
            query_sums: Vec::new(),
            weights: Vec::new(),
            weight_scales: Vec::new(),
            inv_weight_scales: Vec::new(),
        }
    }

    pub(super) fn resize(&mut self, rows: usize, dim: usize) {
        self.queries.resize(rows * dim, 0);
        self.query_scales.resize(rows, 0.0);
        self.query_sums.resize(rows, 0);
        self.weights.resize(rows, [0; PAGE_TOKENS]);
        self.weight_scales.resize(rows, 0.0);
        self.inv_weight_scales.resize(rows, 0.0);
    }
}
