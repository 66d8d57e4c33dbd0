//! Attention over an INT8 cache, and what writes the cache.

use dualgrain_cpu::{Cache, CpuDevice, Matrix};
use dualgrain_device::{AttentionParams, CacheFormat, CacheShape, Device, PAGE_TOKENS, Step};

use crate::operands::matrix;
use crate::operation::Operation;

/// Attention of a 1.1B Llama: queries, then keys, then values side by side.
const HEADS: usize = 32;
const KV_HEADS: usize = 4;
pub const HEAD_DIM: usize = 64;
const Q: usize = HEADS * HEAD_DIM;
const KV: usize = KV_HEADS * HEAD_DIM;

/// Keys and values of the last `tokens` of a context into an INT8 cache.
pub fn cache_write((tokens, context): (usize, usize)) -> Operation {
    Operation {
        name: "attention_write_int8",
        shape: format!("{tokens}over{context}x{HEADS}/{KV_HEADS}"),
        units: tokens * 2 * KV,
        unit: "element",
        prepare: Box::new(move |device| {
            let mut sequence = Sequence::new(&device, context);
            let x = matrix(&device, tokens, Q + 2 * KV);
            Box::new(move || sequence.write(&device, &x, context - tokens))
        }),
    }
}

/// The last `tokens` of a context over an INT8 cache.
pub fn attention((tokens, context): (usize, usize)) -> Operation {
    // Queries and the keys they see.
    let pairs = tokens * (context - tokens) + tokens * (tokens + 1) / 2;
    Operation {
        name: "attention_int8",
        shape: format!("{tokens}over{context}x{HEADS}/{KV_HEADS}"),
        units: 2 * pairs * Q,
        unit: "multiply-add",
        prepare: Box::new(move |device| {
            let mut sequence = Sequence::new(&device, context);
            sequence.write(&device, &matrix(&device, context, Q + 2 * KV), 0);
            let x = matrix(&device, tokens, Q + 2 * KV);
            let mut out = device.matrix(tokens, Q);
            let params = AttentionParams {
                num_heads: HEADS,
                scale: 0.125,
                sliding_window: None,
                alibi_slopes: None,
            };
            Box::new(move || {
                let step = sequence.step(context - tokens, tokens);
                device.attention(&mut out, &x, 0..Q, &sequence.cache, 0, &params, &step);
            })
        }),
    }
}

/// A sequence alone in its cache.
struct Sequence {
    cache: Cache,
    positions: Vec<u32>,
    sequences: Vec<u32>,
    page_tables: [Vec<u32>; 1],
}

impl Sequence {
    fn new(device: &CpuDevice, context: usize) -> Self {
        let num_pages = context.div_ceil(PAGE_TOKENS);
        let shape = CacheShape {
            num_layers: 1,
            num_kv_heads: KV_HEADS,
            head_dim: HEAD_DIM,
            num_pages,
        };
        Self {
            cache: device.cache(shape, &CacheFormat::Int8).expect("fits"),
            positions: (0..context as u32).collect(),
            sequences: vec![0; context],
            page_tables: [(0..num_pages as u32).collect()],
        }
    }

    fn step(&self, first: usize, tokens: usize) -> Step<'_> {
        Step {
            positions: &self.positions[first..first + tokens],
            sequences: &self.sequences[..tokens],
            page_tables: &self.page_tables,
        }
    }

    fn write(&mut self, device: &CpuDevice, x: &Matrix, first: usize) {
        // Not `step`, which would borrow the cache too.
        let step = Step {
            positions: &self.positions[first..first + device.rows(x)],
            sequences: &self.sequences[..device.rows(x)],
            page_tables: &self.page_tables,
        };
        device.cache_write(&mut self.cache, 0, x, Q..Q + KV, Q + KV..Q + 2 * KV, &step);
    }
}
