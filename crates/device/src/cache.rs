//! The KV cache: formats, pages, and what attention over it needs.

use std::f32::consts::LOG2_E;
use std::fmt;

use dualgrain_format::CacheScheme;

/// Tokens in one page of the KV cache.
pub const PAGE_TOKENS: usize = 64;

/// Largest head a device must be able to attend over.
pub const MAX_HEAD_DIM: usize = 512;

/// How keys and values are stored.
#[derive(Debug, Clone, PartialEq)]
pub enum CacheFormat {
    /// 32-bit floats: the reference.
    F32,
    /// 16-bit floats.
    F16,
    /// INT8 with a scale per token and head, `absmax / 127`; attention multiplies integers.
    Int8,
    /// INT8 with one calibrated scale per layer for keys and one for values (the paper's option).
    Int8Static {
        /// Key scale of each layer.
        key_scales: Vec<f32>,
        /// Value scale of each layer.
        value_scales: Vec<f32>,
    },
}

impl From<CacheScheme> for CacheFormat {
    /// The format of a folder's scheme; static scales, which the folder stores beside it, are left out.
    fn from(scheme: CacheScheme) -> Self {
        match scheme {
            CacheScheme::F16 => Self::F16,
            CacheScheme::Int8 => Self::Int8,
            CacheScheme::Int8Static => Self::Int8Static {
                key_scales: Vec::new(),
                value_scales: Vec::new(),
            },
        }
    }
}

impl CacheFormat {
    /// Bytes a token takes in one layer, keys and values with their scales.
    pub fn bytes_per_token(&self, num_kv_heads: usize, head_dim: usize) -> usize {
        let (element, scale) = match self {
            Self::F32 => (4, 0),
            Self::F16 => (2, 0),
            Self::Int8 => (1, 4),
            Self::Int8Static { .. } => (1, 0),
        };
        2 * num_kv_heads * (head_dim * element + scale)
    }
}

/// Size of a paged KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheShape {
    /// Layers that each have their own pages.
    pub num_layers: usize,
    /// Key/value heads.
    pub num_kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Pages of [`PAGE_TOKENS`] tokens.
    pub num_pages: usize,
}

impl fmt::Display for CacheShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} layers x {} pages x {PAGE_TOKENS} tokens x {} heads x {}",
            self.num_layers, self.num_pages, self.num_kv_heads, self.head_dim
        )
    }
}

/// What an attention layer needs besides queries and the cache.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionParams {
    /// Query heads; each group of `num_heads / num_kv_heads` consecutive heads shares a key/value head.
    pub num_heads: usize,
    /// Factor on the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// A query at position p sees keys at positions > p - window.
    pub sliding_window: Option<usize>,
    /// Scaled scores become `soft_cap * tanh(score / soft_cap)` before anything is added to them.
    pub soft_cap: Option<f32>,
    /// ALiBi slopes `[num_heads]`: `slope * key_position` is added to the scaled score (the query-position part
    /// cancels in the softmax; this is the form transformers computes).
    pub alibi_slopes: Option<Vec<f32>>,
    /// A score for each query head `[num_heads]` that takes part in its softmax as a key without a value would; it is neither scaled
    /// nor capped.
    pub sinks: Option<Vec<f32>>,
}

impl AttentionParams {
    /// What products of queries and keys are multiplied by: for scores in powers of two, or for the hyperbolic tangent of a cap.
    pub fn score_factor(&self) -> f32 {
        match self.soft_cap {
            None => self.scale * LOG2_E,
            Some(cap) => self.scale / cap,
        }
    }
}
