//! The memory that a model holds while it runs.

use dualgrain_device::PAGE_TOKENS;
use dualgrain_format::{GroupSize, int4};
use serde::Serialize;

use super::network::{Linear, Network};
use super::scheme::Scheme;
use super::workload::Workload;
use crate::machine::{Machine, MachineKind};

/// A GPU's driver, libraries and compiled kernels, roughly.
const CONTEXT_BYTES: u64 = 600_000_000;
/// A process on the CPU: program, thread stacks, tokenizer. `bench` of llama-tiny holds 15.7 MB besides weights and cache.
const PROGRAM_BYTES: u64 = 15_000_000;

/// Memory of one batch size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Linears, embeddings, norms.
    pub weights_bytes: u64,
    /// Keys and values of all sequences at their full length, in whole pages.
    #[serde(rename = "cache_bytes")]
    pub kv_cache_bytes: u64,
    /// Activations of the largest step, logits, and what program and driver take.
    pub workspace_bytes: u64,
    /// All of it.
    pub total_bytes: u64,
    /// What the machine has.
    pub machine_bytes: u64,
    /// Whether it is enough.
    pub fits: bool,
}

impl Memory {
    pub(crate) fn new(network: &Network, machine: &Machine, workload: &Workload, batch: usize) -> Self {
        let weights_bytes = weights(network, workload);
        let kv_cache_bytes = kv_cache(network, workload, batch);
        let workspace_bytes = workspace(network, machine, workload, batch);
        let total_bytes = weights_bytes + kv_cache_bytes + workspace_bytes;
        let machine_bytes = machine.memory_bytes as u64;
        Self {
            weights_bytes,
            kv_cache_bytes,
            workspace_bytes,
            total_bytes,
            machine_bytes,
            fits: total_bytes <= machine_bytes,
        }
    }
}

/// Bytes of all linears, the output layer included.
pub(crate) fn linears_bytes(network: &Network, workload: &Workload) -> u64 {
    let linears = network.linears.iter().map(|linear| match linear.head {
        // A tied float head is the embedding.
        true if network.tie_embeddings && workload.head_scheme == Scheme::Bf16 => 0,
        true => linear_bytes(linear, workload.head_scheme, workload.group_size),
        false => linear_bytes(linear, workload.scheme, workload.group_size),
    });
    linears.sum()
}

fn weights(network: &Network, workload: &Workload) -> u64 {
    let embeddings = 2 * network.num_embeddings * network.hidden_size;
    let norms = 4 * network.hidden_size * (2 * network.num_layers + 1);
    linears_bytes(network, workload) + (embeddings + norms) as u64
}

fn linear_bytes(linear: &Linear, scheme: Scheme, group_size: GroupSize) -> u64 {
    let groups = group_size.num_groups(linear.k);
    let row = match scheme {
        // Codes, zero points, integer scales, the channel's scale.
        Scheme::W4a8 => int4::row_bytes(linear.k) + int4::row_bytes(groups) + groups + 4,
        Scheme::W8a8 => linear.k + 4,
        Scheme::Bf16 => 2 * linear.k,
    };
    (linear.count * linear.n * row) as u64
}

fn kv_cache(network: &Network, workload: &Workload, batch: usize) -> u64 {
    let pages = (workload.prompt_tokens + workload.generate_tokens).div_ceil(PAGE_TOKENS);
    let token = workload
        .kv_cache
        .bytes_per_token(network.num_kv_heads, network.head_dim);
    (batch * network.num_layers) as u64 * (pages * PAGE_TOKENS * token) as u64
}

fn workspace(network: &Network, machine: &Machine, workload: &Workload, batch: usize) -> u64 {
    let tokens = batch
        .saturating_mul(workload.prompt_tokens)
        .min(workload.step_tokens)
        .max(batch);
    let (float_bytes, process) = match machine.kind {
        MachineKind::Gpu => (2, CONTEXT_BYTES),
        MachineKind::Cpu => (4, PROGRAM_BYTES),
    };
    let qkv = network.q_size() + 2 * network.kv_size();
    let floats = 3 * network.hidden_size + qkv + network.q_size() + 3 * network.ffn_size;
    let integers = network.hidden_size + network.q_size() + network.ffn_size;
    let token = float_bytes * floats + integers;
    process + tokens as u64 * token as u64 + (batch * network.vocab_size * 4) as u64
}
