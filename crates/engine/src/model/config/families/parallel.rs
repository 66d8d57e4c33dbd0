//! Families whose attention and feed-forward read the same residual stream.

use crate::model::config::fields::{Fields, factor};
use crate::model::config::layer_types::{every_nth_is_full, read_layer_types};
use crate::model::config::rope;
use crate::model::config::sizes::{Defaults, read_activation, read_sizes, read_window};
use crate::{ConfigError, Family, FfnKind, ModelConfig};

/// Command R and its kin: one norm without bias for both, rotated neighbours, scaled logits.
pub(super) fn read_cohere(family: Family, fields: Fields<'_>) -> Result<ModelConfig, ConfigError> {
    fields.require_flag("use_qk_norm", false, false)?;
    let defaults = Defaults {
        hidden_names: &["hidden_size"],
        vocab_size: 256_000,
        hidden_size: 8_192,
        num_layers: 40,
        num_heads: 64,
        ffn_size: 22_528,
        max_positions: 8_192,
        tie_embeddings: true,
    };
    let mut config = read_sizes(family, fields, defaults)?;
    config.num_kv_heads = fields.size("num_key_value_heads", config.num_heads, config.num_heads)?;
    config.norm_bias = false;
    config.norm_eps = fields.positive("layer_norm_eps", Some(1e-5))? as f32;
    config.parallel = true;
    config.ffn = FfnKind::Gated(read_activation(fields, "hidden_act", "silu")?);
    config.qkv_bias = fields.flag("attention_bias", false)?;
    config.out_bias = config.qkv_bias;
    config.rotates_neighbours = true;
    let theta = if family == Family::Cohere2 { 1e4 } else { 5e5 };
    config.position = rope::read_position(fields, &mut config, theta)?;
    let scale = fields.positive("logit_scale", Some(0.0625))?;
    config.head_scale = factor("logit_scale", scale, scale)?;
    (config.bos_token, config.eos_tokens, config.pad_token) = (Some(5), vec![255_001], Some(0));
    if family == Family::Cohere2 {
        let interval = fields.size("sliding_window_pattern", 4, usize::MAX)?;
        let window = read_window(fields, Some(4_096))?;
        let has_window = every_nth_is_full(interval);
        config.sliding_windows = read_layer_types(fields, config.num_layers, window, &has_window)?;
        config.rotated_layers = config.sliding_windows.iter().map(Option::is_some).collect();
    }
    Ok(config)
}

/// GPT-NeoX and Pythia: a norm for each, biases, a plain feed-forward, a part of each head rotated.
pub(super) fn read_gpt_neox(fields: Fields<'_>) -> Result<ModelConfig, ConfigError> {
    let defaults = Defaults {
        hidden_names: &["hidden_size"],
        vocab_size: 50_432,
        hidden_size: 6_144,
        num_layers: 44,
        num_heads: 64,
        ffn_size: 24_576,
        max_positions: 2_048,
        tie_embeddings: false,
    };
    let mut config = read_sizes(Family::GptNeoX, fields, defaults)?;
    config.norm_eps = fields.positive("layer_norm_eps", Some(1e-5))? as f32;
    config.parallel = fields.flag("use_parallel_residual", true)?;
    config.ffn = FfnKind::Plain(read_activation(fields, "hidden_act", "gelu")?);
    config.qkv_bias = fields.flag("attention_bias", true)?;
    (config.out_bias, config.ffn_bias) = (config.qkv_bias, true);
    config.position = rope::read_position(fields, &mut config, 1e4)?;
    (config.bos_token, config.eos_tokens) = (Some(0), vec![2]);
    Ok(config)
}
