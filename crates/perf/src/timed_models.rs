//! Small models that a profile runs whole, as the engine runs models: how long their steps took. What `cost` says of these
//! steps beside what they took tells how true it is of others: products run in a chain there, in a cache or past it.

use dualgrain_format::GroupSize;
use serde::{Deserialize, Serialize};

/// A gated model of random weights (4 bits in groups of 128, an INT8 output layer) over an INT8 cache, and the steps that were timed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimedModel {
    /// Its sizes.
    pub sizes: ModelSizes,
    /// Tokens of a prompt that is read in one step.
    pub prompt_tokens: usize,
    /// Seconds of that step.
    pub prompt_s: f64,
    /// Positions that each sequence sees while it is decoded.
    pub context: usize,
    /// Steps that decode, the fewest sequences first.
    pub decode: Vec<DecodeStep>,
}

/// A step that decodes one token of each of some sequences.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DecodeStep {
    /// Sequences.
    pub sequences: usize,
    /// Seconds.
    pub time_s: f64,
}

/// The sizes of a model that is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSizes {
    /// Blocks.
    pub num_layers: usize,
    /// Elements of a token between blocks.
    pub hidden: usize,
    /// Heads of queries.
    pub num_heads: usize,
    /// Heads of keys, and as many of values.
    pub num_kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Elements inside the feed-forward.
    pub ffn: usize,
    /// Entries of the logits.
    pub vocab_size: usize,
}

impl ModelSizes {
    /// `[N, K]` of a block's linears in the order in which they run: `qkv`, `out`, `up`, `down`.
    pub(crate) fn block(&self) -> [[usize; 2]; 4] {
        let (q, kv) = (self.q(), self.kv());
        [
            [q + 2 * kv, self.hidden],
            [self.hidden, q],
            [2 * self.ffn, self.hidden],
            [self.hidden, self.ffn],
        ]
    }

    /// `[N, K]` of the output layer.
    pub(crate) fn head(&self) -> [usize; 2] {
        [self.vocab_size, self.hidden]
    }

    /// Columns of queries.
    pub(crate) fn q(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Columns of keys, and as many of values.
    pub(crate) fn kv(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }
}

/// Group size of the weights of a model that is timed.
pub(crate) const GROUP_SIZE: GroupSize = GroupSize::Along(128);

/// Sizes of a model that is timed lie below: products of three of them are counts still.
const MOST: usize = 1 << 20;

impl TimedModel {
    /// Whether every figure is a number above 0: a price is divided by what it makes of these steps.
    pub(crate) fn is_sound(&self) -> bool {
        let sizes = &self.sizes;
        let counts = [
            sizes.num_layers,
            sizes.hidden,
            sizes.num_heads,
            sizes.num_kv_heads,
            sizes.head_dim,
            sizes.ffn,
            sizes.vocab_size,
            self.prompt_tokens,
            self.context,
            self.decode.len(),
        ];
        let of_decode = self.decode.iter().map(|step| step.time_s);
        let is_time = |time_s: f64| time_s.is_finite() && time_s > 0.0;
        counts.into_iter().all(|count| (1..MOST).contains(&count))
            && self.decode.iter().all(|step| (1..MOST).contains(&step.sequences))
            && self.decode.is_sorted_by(|a, b| a.sequences < b.sequences)
            && of_decode.chain([self.prompt_s]).all(is_time)
    }
}
