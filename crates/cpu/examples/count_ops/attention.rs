//! Attention over an INT8 cache, and what writes the cache.

use dualgrain_cpu::{Cache, CpuDevice, Matrix};
use dualgrain_device::{AttentionParams, CacheFormat, CacheShape, Device, HostStep, PAGE_TOKENS};

use crate::operands::{matrix, one_sequence};
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
            let step = one_sequence(&device, context - tokens..context, sequence.num_pages);
            Box::new(move || sequence.write(&device, &x, &step))
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
            let whole = one_sequence(&device, 0..context, sequence.num_pages);
            sequence.write(&device, &matrix(&device, context, Q + 2 * KV), &whole);
            let x = matrix(&device, tokens, Q + 2 * KV);
            let mut out = device.matrix(tokens, Q).unwrap();
            let params = AttentionParams {
                num_heads: HEADS,
                scale: 0.125,
                sliding_window: None,
                soft_cap: None,
                alibi_slopes: None,
                sinks: None,
            };
            let step = one_sequence(&device, context - tokens..context, sequence.num_pages);
            Box::new(move || {
                device
                    .attention(&mut out, &x, 0..Q, &sequence.cache, 0, &params, &step)
                    .unwrap();
            })
        }),
    }
}

/// A sequence alone in its cache.
struct Sequence {
    cache: Cache,
    num_pages: usize,
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
            num_pages,
        }
    }

    fn write(&mut self, device: &CpuDevice, x: &Matrix, step: &HostStep) {
        device
            .cache_write(&mut self.cache, 0, x, Q..Q + KV, Q + KV..Q + 2 * KV, step)
            .unwrap();
    }
}
