//! Sizes and what else stands under the same names in all families.

use dualgrain_device::Activation;
use dualgrain_format::K_MAX;
use serde_json::Value;

use crate::model::config::fields::{Fields, unsupported};
use crate::{ConfigError, Family, FfnKind, ModelConfig, NormKind, Position, QkNorm};

const MAX_LAYERS: usize = 4_096;
const MAX_VOCAB: usize = 1 << 24;
pub(super) const MAX_POSITIONS: usize = 1 << 30;

/// Sizes that stand under the same names in all but BLOOM, and everything at its most common value.
pub(super) fn read_sizes(
    family: Family,
    fields: Fields<'_>,
    defaults: Defaults,
) -> Result<ModelConfig, ConfigError> {
    let hidden_size = fields.size(
        fields.spelling(defaults.hidden_names),
        defaults.hidden_size,
        K_MAX,
    )?;
    let num_layers = fields.size(
        fields.spelling(&["num_hidden_layers", "n_layer"]),
        defaults.num_layers,
        MAX_LAYERS,
    )?;
    let heads_name = fields.spelling(&["num_attention_heads", "n_head"]);
    let num_heads = fields.size(heads_name, defaults.num_heads, hidden_size)?;
    let positions_name = fields.spelling(&["max_position_embeddings", "seq_length"]);
    Ok(ModelConfig {
        vocab_size: fields.size("vocab_size", defaults.vocab_size, MAX_VOCAB)?,
        hidden_size,
        num_layers,
        num_heads,
        num_kv_heads: num_heads,
        head_dim: hidden_size / num_heads,
        rotary_dim: hidden_size / num_heads,
        ffn_size: fields.size(
            fields.spelling(&["intermediate_size", "ffn_dim"]),
            defaults.ffn_size,
            K_MAX,
        )?,
        max_positions: fields.size(positions_name, defaults.max_positions, MAX_POSITIONS)?,
        rotated_layers: vec![true; num_layers],
        sliding_windows: vec![None; num_layers],
        tie_embeddings: fields.flag("tie_word_embeddings", defaults.tie_embeddings)?,
        ..without_features(family)
    })
}

/// A model with no feature that only some families have, and no sizes yet.
fn without_features(family: Family) -> ModelConfig {
    ModelConfig {
        family,
        vocab_size: 0,
        hidden_size: 0,
        num_layers: 0,
        num_heads: 0,
        num_kv_heads: 0,
        head_dim: 0,
        rotary_dim: 0,
        ffn_size: 0,
        max_positions: 0,
        norm: NormKind::Layer,
        norm_bias: true,
        norm_offset: 0.0,
        stream_divisor: 1.0,
        parallel: false,
        norm_eps: 1e-5,
        ffn: FfnKind::Plain(Activation::Relu),
        position: Position::None,
        local_rope: None,
        rotates_neighbours: false,
        rotated_layers: Vec::new(),
        attention_scale: None,
        score_cap: None,
        logit_cap: None,
        sliding_windows: Vec::new(),
        qkv_bias: false,
        out_bias: false,
        ffn_bias: false,
        qk_norm: QkNorm::None,
        attention_sinks: false,
        hadamard_down: None,
        embedding_norm: false,
        embedding_scale: 1.0,
        head_scale: 1.0,
        tie_embeddings: false,
        dtype: None,
        bos_token: None,
        eos_tokens: Vec::new(),
        pad_token: None,
        mixture: None,
        quantization: None,
        notices: Vec::new(),
    }
}

/// What transformers assumes where config.json is silent.
pub(super) struct Defaults {
    pub hidden_names: &'static [&'static str],
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_layers: usize,
    pub num_heads: usize,
    pub ffn_size: usize,
    pub max_positions: usize,
    pub tie_embeddings: bool,
}

pub(super) fn read_activation(
    fields: Fields<'_>,
    name: &str,
    default: &'static str,
) -> Result<Activation, ConfigError> {
    match fields.text(name)?.unwrap_or(default) {
        "silu" | "swish" => Ok(Activation::Silu),
        "relu" => Ok(Activation::Relu),
        "gelu" | "gelu_python" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_accurate" => {
            Ok(Activation::GeluTanh)
        }
        other => Err(unsupported(name, other, "silu, relu, gelu, gelu_new")),
    }
}

/// How many last tokens a query sees; `usual` where the field is missing, all where it is null.
pub(super) fn read_window(fields: Fields<'_>, usual: Option<usize>) -> Result<Option<usize>, ConfigError> {
    match (fields.0.get("sliding_window"), usual) {
        (Some(Value::Null), _) | (None, None) => Ok(None),
        (_, usual) => fields
            .size("sliding_window", usual.unwrap_or(1), MAX_POSITIONS)
            .map(Some),
    }
}
