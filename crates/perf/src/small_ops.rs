//! The operations of a language model between its products: norms, rotations, sums, quantization, attention. The sizes of
//! the model say how many bytes and operations they take; the rates that a machine reaches on them are measured.

use serde::{Deserialize, Serialize};

/// Small operations of a block that are started one by one: two norms that quantize, rotation with the write to the cache,
/// attention, quantization before `out`, activation before `down`.
pub(crate) const SMALL_OPS: usize = 6;

/// The rates that a machine reaches between products, measured on the operations of one block.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SmallOpRates {
    /// Operations per second of attention over an INT8 KV cache, many queries of one sequence (a prompt).
    pub prompt_attention_ops_per_s: f64,
    /// The same, one query of each sequence (decode); 0 where the cache's bytes decide, however many heads share them.
    pub decode_attention_ops_per_s: f64,
    /// Bytes of the cache per second that decode reads, beyond [`Self::decode_attention_start_s`]; 0 where operations decide.
    #[serde(default)]
    pub decode_cache_bytes_per_s: f64,
    /// Seconds that attention takes for the first pair of a query and a key in decode: on a card, pages travel and spans join
    /// before anything else is to be seen. 0 where it is no part of its own.
    #[serde(default)]
    pub decode_attention_start_s: f64,
    /// Bytes per second that everything else moves when many tokens pass, beyond its starts. Each small operation reads its input
    /// once and writes its output once.
    pub bytes_per_s: f64,
    /// Seconds that one small operation takes for a single token.
    pub start_s: f64,
    /// What the machine draws meanwhile, where it was measured.
    #[serde(default)]
    pub power: Option<SmallOpPower>,
}

/// Mean power of the whole machine, idle power included, in watts, while it runs small operations alone.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SmallOpPower {
    /// Attention of a prompt.
    pub prompt_attention_w: f64,
    /// Attention of many sequences, one query each.
    pub decode_attention_w: f64,
    /// Everything else, many tokens.
    pub bytes_w: f64,
    /// Everything else, one token.
    pub start_w: f64,
}

/// The sizes of a block that decide the cost of its small operations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct BlockSizes {
    /// Elements of a token between blocks.
    pub hidden: usize,
    /// Queries of a token: heads times head_dim.
    pub q: usize,
    /// Keys of a token, and as many values.
    pub kv: usize,
    /// Elements inside the feed-forward.
    pub ffn: usize,
    /// Whether a gate is multiplied there.
    pub gated: bool,
}

impl BlockSizes {
    /// Bytes that a token moves between the products of a block: each small operation reads its input once and writes its
    /// output once. An activation has `float` bytes, an element that a product reads has `operand` bytes.
    pub fn small_op_bytes(&self, float: f64, operand: f64) -> f64 {
        let size = |elements: usize| elements as f64;
        let norms = 2.0 * size(self.hidden) * (3.0 * float + operand);
        let rotation = size(self.q + 2 * self.kv) * 2.0 * float;
        let out = size(self.q) * (float + operand);
        let inner = size(self.ffn) * (if self.gated { 2.0 } else { 1.0 } * float + operand);
        norms + rotation + out + inner
    }

    /// Operations of attention over `pairs` of a query and a key: for every element of a head two for the score, two for the sum.
    pub fn attention_ops(&self, pairs: f64) -> f64 {
        4.0 * pairs * self.q as f64
    }
}
