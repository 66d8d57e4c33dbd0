//! What a model is made of: its sizes, its family and the kinds of its parts.

use dualgrain_device::{Activation, RoutingRule};
use dualgrain_format::QuantizationConfig;

/// Everything the engine must know about a model; sizes are checked, defaults are those of transformers.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Which architecture, and with it which tensor names.
    pub family: Family,
    /// Entries of the embedding and of the logits.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Blocks.
    pub num_layers: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key/value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Elements of a head; need not be `hidden_size / num_heads`.
    pub head_dim: usize,
    /// Elements of a head that a rotary embedding rotates, the first ones.
    pub rotary_dim: usize,
    /// Width inside the feed-forward.
    pub ffn_size: usize,
    /// Positions the model was made for. Learned positions end here; others may go beyond at their own risk.
    pub max_positions: usize,
    /// Kind of every norm.
    pub norm: NormKind,
    /// Norms with mean have biases.
    pub norm_bias: bool,
    /// What is added to the stored weights of norms (Gemma: 1).
    pub norm_offset: f32,
    /// Epsilon of every norm.
    pub norm_eps: f32,
    /// The residual stream is kept divided by this (Granite, Gemma 2): norms that read it have an epsilon that fits, and norms whose results
    /// are added to it are divided too.
    pub stream_divisor: f64,
    /// Attention and feed-forward read the residual stream as the block finds it, and both are added to it (GPT-NeoX, Command R).
    pub parallel: bool,
    /// Kind of the feed-forward.
    pub ffn: FfnKind,
    /// The experts of layers that have some in the place of one feed-forward.
    pub mixture: Option<MixtureConfig>,
    /// How positions enter.
    pub position: Position,
    /// The rotary embedding of layers with a window, where that is another one (Gemma 3).
    pub local_rope: Option<RopeConfig>,
    /// Rotated elements are neighbours in the checkpoint's heads, not halves apart (GLM). Rows of queries and keys are sorted as they are
    /// loaded, so that the same rotation does.
    pub rotates_neighbours: bool,
    /// For each layer, whether a rotary embedding rotates it (SmolLM3 leaves some out).
    pub rotated_layers: Vec<bool>,
    /// What scores are multiplied by; `None` is one over the root of `head_dim`.
    pub attention_scale: Option<f32>,
    /// Scores become `cap * tanh(score / cap)` (Gemma 2).
    pub score_cap: Option<f32>,
    /// Logits become `cap * tanh(logit / cap)` (Gemma 2).
    pub logit_cap: Option<f32>,
    /// For each layer, how many last tokens a query sees; `None` sees all.
    pub sliding_windows: Vec<Option<usize>>,
    /// q, k and v have biases.
    pub qkv_bias: bool,
    /// The attention's output projection has a bias.
    pub out_bias: bool,
    /// The feed-forward's linears have biases.
    pub ffn_bias: bool,
    /// RMS norms of queries and keys.
    pub qk_norm: QkNorm,
    /// Each head has a score that takes part in its softmax and belongs to no key (gpt-oss).
    pub attention_sinks: bool,
    /// The input of Down is transformed in blocks of so many channels before it becomes INT8 (`Device::hadamard`), and the weights of
    /// Down are those of the transformed input. A quantized folder says so; a quantizer sets it for the original.
    pub hadamard_down: Option<usize>,
    /// A norm right after the embedding (BLOOM).
    pub embedding_norm: bool,
    /// What the embedding is multiplied by (Granite).
    pub embedding_scale: f32,
    /// What the last norm's result, and so the logits, are multiplied by (Granite).
    pub head_scale: f32,
    /// The head uses the embedding's weights.
    pub tie_embeddings: bool,
    /// Type the checkpoint says its floats have, if it says so.
    pub dtype: Option<FloatType>,
    /// First token of a text, if the model has one.
    pub bos_token: Option<u32>,
    /// Tokens that end a text (generation_config.json adds to config.json).
    pub eos_tokens: Vec<u32>,
    /// Padding token.
    pub pad_token: Option<u32>,
    /// Present in a quantized folder.
    pub quantization: Option<QuantizationConfig>,
    /// What a person who gave these files should know; a sentence each.
    pub notices: Vec<String>,
}

/// Supported architectures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Llama 1, 2, 3.x.
    Llama,
    /// Mistral 7B and its kin.
    Mistral,
    /// Qwen2, Qwen2.5.
    Qwen2,
    /// Qwen3 (dense).
    Qwen3,
    /// OPT with norms before the blocks.
    Opt,
    /// BLOOM.
    Bloom,
    /// Phi-3, Phi-3.5, Phi-4 (dense, text).
    Phi3,
    /// Granite 3 (dense).
    Granite,
    /// SmolLM3.
    SmolLm3,
    /// StarCoder 2.
    Starcoder2,
    /// GLM-4 9B (norms before the blocks alone).
    Glm,
    /// GLM-4-0414 (norms before and behind attention and feed-forward).
    Glm4,
    /// Gemma 1.
    Gemma,
    /// Gemma 2.
    Gemma2,
    /// Gemma 3, its text model.
    Gemma3,
    /// OLMo 2.
    Olmo2,
    /// OLMo 3.
    Olmo3,
    /// Command R and Aya.
    Cohere,
    /// Command R7B and Command A.
    Cohere2,
    /// GPT-NeoX and Pythia.
    GptNeoX,
    /// Mixtral.
    Mixtral,
    /// Qwen1.5-MoE, Qwen2-MoE.
    Qwen2Moe,
    /// Qwen3-MoE.
    Qwen3Moe,
    /// OLMoE.
    Olmoe,
    /// GLM-4.5 and GLM-4.6.
    Glm4Moe,
    /// gpt-oss.
    GptOss,
}

/// Kind of norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// Root mean square, no bias.
    Rms,
    /// Mean and variance, with bias.
    Layer,
}

/// What of queries and keys is normed, before a rotary embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// Nothing.
    None,
    /// Every head by itself (Qwen3).
    Heads,
    /// All heads of a token together (OLMo 2).
    Rows,
}

/// Kind of feed-forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FfnKind {
    /// `down(f(gate(x)) * up(x))`.
    Gated(Activation),
    /// `fc2(f(fc1(x)))`.
    Plain(Activation),
}

/// The experts that stand in the place of one feed-forward.
#[derive(Debug, Clone, PartialEq)]
pub struct MixtureConfig {
    /// Experts of a layer.
    pub num_experts: usize,
    /// Width inside an expert.
    pub expert_size: usize,
    /// How a token's experts are chosen and weighed.
    pub rule: RoutingRule,
    /// A bias is added to the scores that choose, and not to those that weigh.
    pub has_selection_bias: bool,
    /// The router's logits have a bias.
    pub has_router_bias: bool,
    /// A feed-forward beside the experts that every token goes through.
    pub shared: Option<SharedExpert>,
    /// For each layer, whether it has experts.
    pub sparse_layers: Vec<bool>,
}

/// A feed-forward beside the experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedExpert {
    /// Width inside it.
    pub size: usize,
    /// Whether the sigmoid of a gate weighs it (Qwen2-MoE).
    pub gated: bool,
}

/// How positions enter the model.
#[derive(Debug, Clone, PartialEq)]
pub enum Position {
    /// Rotated queries and keys.
    Rope(RopeConfig),
    /// An embedding of its own for each position; position p has entry `p + offset`.
    Learned {
        /// Entries before that of position 0 (OPT: 2).
        offset: usize,
    },
    /// A bias on the scores, linear in the distance.
    Alibi,
    /// Not at all.
    None,
}

/// Rotary position embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f64,
    /// Change of the frequencies for longer contexts.
    pub scaling: RopeScaling,
}

impl ModelConfig {
    /// Epsilon of the norms that read the residual stream.
    pub fn stream_norm_eps(&self) -> f32 {
        (f64::from(self.norm_eps) / (self.stream_divisor * self.stream_divisor)) as f32
    }
}

impl RopeConfig {
    /// Positions that the frequencies were stretched for; 0 where they say nothing of it.
    pub fn reach(&self) -> usize {
        match self.scaling {
            RopeScaling::Yarn {
                factor,
                original_max_positions,
                ..
            } => (factor * original_max_positions) as usize,
            _ => 0,
        }
    }
}

/// Supported rope types (`modeling_rope_utils.py` of transformers).
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Plain.
    Default,
    /// Frequencies divided by `factor`.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// NTK-aware: beyond `max_positions` the base grows with the context, up to there nothing changes.
    Dynamic {
        /// How much the base grows with the context.
        factor: f64,
        /// Context the model was trained with.
        max_positions: f64,
    },
    /// YaRN (arXiv 2309.00071): slow dimensions interpolated, fast ones kept, a ramp between; cosines and sines scaled.
    Yarn {
        /// The divisor of slow dimensions.
        factor: f64,
        /// What cosines and sines are multiplied by.
        attention_factor: f64,
        /// Rotations over the original context from which on a dimension is kept.
        beta_fast: f64,
        /// Rotations up to which it is interpolated.
        beta_slow: f64,
        /// Context the model was first trained with.
        original_max_positions: f64,
        /// Whether the ends of the ramp are whole dimensions.
        truncate: bool,
    },
    /// LongRoPE (arXiv 2402.13753): a divisor for every dimension, in two lists; cosines and sines scaled.
    LongRope {
        /// Divisors `[head_dim / 2]` for contexts up to the original one.
        short_factor: Vec<f64>,
        /// Divisors `[head_dim / 2]` for longer contexts.
        long_factor: Vec<f64>,
        /// What cosines and sines are multiplied by.
        attention_factor: f64,
        /// Context the model was first trained with.
        original_max_positions: f64,
    },
    /// Llama 3: low frequencies divided by `factor`, high ones kept, a ramp between.
    Llama3 {
        /// The divisor of low frequencies.
        factor: f64,
        /// Wavelengths above `original / low` are scaled.
        low_freq_factor: f64,
        /// Wavelengths below `original / high` are kept.
        high_freq_factor: f64,
        /// Context the model was first trained with.
        original_max_positions: f64,
    },
}

/// Float types of checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatType {
    /// 32-bit.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 26] = [
        Self::Llama,
        Self::Mistral,
        Self::Qwen2,
        Self::Qwen3,
        Self::Opt,
        Self::Bloom,
        Self::Phi3,
        Self::Granite,
        Self::SmolLm3,
        Self::Starcoder2,
        Self::Glm,
        Self::Glm4,
        Self::Gemma,
        Self::Gemma2,
        Self::Gemma3,
        Self::Olmo2,
        Self::Olmo3,
        Self::Cohere,
        Self::Cohere2,
        Self::GptNeoX,
        Self::Mixtral,
        Self::Qwen2Moe,
        Self::Qwen3Moe,
        Self::Olmoe,
        Self::Glm4Moe,
        Self::GptOss,
    ];

    /// Name of the family in transformers' class names.
    pub fn class_prefix(self) -> &'static str {
        match self {
            Self::Llama => "Llama",
            Self::Mistral => "Mistral",
            Self::Qwen2 => "Qwen2",
            Self::Qwen3 => "Qwen3",
            Self::Opt => "OPT",
            Self::Bloom => "Bloom",
            Self::Phi3 => "Phi3",
            Self::Granite => "Granite",
            Self::SmolLm3 => "SmolLM3",
            Self::Starcoder2 => "Starcoder2",
            Self::Glm => "Glm",
            Self::Glm4 => "Glm4",
            Self::Gemma => "Gemma",
            Self::Gemma2 => "Gemma2",
            Self::Gemma3 => "Gemma3",
            Self::Olmo2 => "Olmo2",
            Self::Olmo3 => "Olmo3",
            Self::Cohere => "Cohere",
            Self::Cohere2 => "Cohere2",
            Self::GptNeoX => "GPTNeoX",
            Self::Mixtral => "Mixtral",
            Self::Qwen2Moe => "Qwen2Moe",
            Self::Qwen3Moe => "Qwen3Moe",
            Self::Olmoe => "Olmoe",
            Self::Glm4Moe => "Glm4Moe",
            Self::GptOss => "GptOss",
        }
    }

    /// `model_type` in config.json.
    pub fn model_type(self) -> String {
        match self {
            Self::Gemma3 => "gemma3_text".into(),
            Self::GptNeoX => "gpt_neox".into(),
            Self::Qwen2Moe => "qwen2_moe".into(),
            Self::Qwen3Moe => "qwen3_moe".into(),
            Self::Glm4Moe => "glm4_moe".into(),
            Self::GptOss => "gpt_oss".into(),
            family => family.class_prefix().to_ascii_lowercase(),
        }
    }
}
