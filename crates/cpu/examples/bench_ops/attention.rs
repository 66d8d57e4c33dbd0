//! Attention over caches of every format, and what writes them.

use dualgrain_cpu::CpuDevice;
use dualgrain_device::{AttentionParams, CacheFormat, CacheShape, Device, PAGE_TOKENS};

use crate::operands::{matrix, one_sequence};
use crate::table::Table;

/// Elements of a head.
const HEAD_DIM: usize = 64;

/// Attention of a 1.1B Llama (32 heads over 4 of 64) and of a small one (8 over 8 of 64).
pub fn attention(device: &CpuDevice, table: &mut Table) {
    if !table.wants("attention") && !table.narrows("attention") {
        return;
    }
    for (num_heads, num_kv_heads) in [(32, 4), (8, 8)] {
        for format in [CacheFormat::F32, CacheFormat::F16, CacheFormat::Int8] {
            for (tokens, context) in [(512, 512), (1_024, 1_024), (1, 512), (1, 2_048), (1, 4_096)] {
                one_attention(
                    device,
                    table,
                    (num_heads, num_kv_heads),
                    &format,
                    (tokens, context),
                );
            }
        }
    }
}

fn one_attention(
    device: &CpuDevice,
    table: &mut Table,
    (num_heads, num_kv_heads): (usize, usize),
    format: &CacheFormat,
    (tokens, context): (usize, usize),
) {
    let num_pages = context / PAGE_TOKENS;
    let shape = CacheShape {
        num_layers: 1,
        num_kv_heads,
        head_dim: HEAD_DIM,
        num_pages,
    };
    let mut cache = device.cache(shape, format).expect("fits");
    let (q, kv) = (num_heads * HEAD_DIM, num_kv_heads * HEAD_DIM);
    let name = match format {
        CacheFormat::F32 => "f32",
        CacheFormat::F16 => "f16",
        _ => "int8",
    };
    let shape = format!("{tokens}over{context}x{num_heads}/{num_kv_heads}");
    let (all, written) = (matrix(device, context, q + 2 * kv), (context * 2 * kv * 4) as f64);
    let op = format!("attention_write_{name}");
    let whole = one_sequence(device, 0..context, num_pages);
    table.row(device, &op, &shape, written, "GB/s", || {
        device
            .cache_write(&mut cache, 0, &all, q..q + kv, q + kv..q + 2 * kv, &whole)
            .unwrap();
    });
    let (x, mut out) = (
        matrix(device, tokens, q + 2 * kv),
        device.matrix(tokens, q).unwrap(),
    );
    let params = AttentionParams {
        num_heads,
        scale: 0.125,
        sliding_window: None,
        soft_cap: None,
        alibi_slopes: None,
        sinks: None,
    };
    // Pairs of query and key under the causal mask.
    let pairs = (tokens * (context - tokens)) as f64 + (tokens * (tokens + 1)) as f64 / 2.0;
    let last = one_sequence(device, context - tokens..context, num_pages);
    let (op, operations) = (format!("attention_{name}"), 4.0 * pairs * q as f64);
    table.row(device, &op, &shape, operations, "GFLOPS", || {
        device
            .attention(&mut out, &x, 0..q, &cache, 0, &params, &last)
            .unwrap();
    });
}
