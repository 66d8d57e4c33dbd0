//! Families with a plain feed-forward.

use dualgrain_device::Activation;
use dualgrain_format::K_MAX;

use crate::model::config::fields::{Fields, field_error, unsupported};
use crate::model::config::rope;
use crate::model::config::sizes::{Defaults, read_activation, read_sizes, read_window};
use crate::{ConfigError, Family, FfnKind, ModelConfig, Position};

pub(super) fn read_opt(fields: Fields<'_>) -> Result<ModelConfig, ConfigError> {
    fields.require_flag("do_layer_norm_before", true, true)?;
    fields.require_flag("_remove_final_layer_norm", false, false)?;
    fields.require_flag("layer_norm_elementwise_affine", true, true)?;
    let defaults = Defaults {
        hidden_names: &["hidden_size"],
        vocab_size: 50_272,
        hidden_size: 768,
        num_layers: 12,
        num_heads: 12,
        ffn_size: 3_072,
        max_positions: 2_048,
        tie_embeddings: true,
    };
    let mut config = read_sizes(Family::Opt, fields, defaults)?;
    let projected = fields.count("word_embed_proj_dim")?.unwrap_or(config.hidden_size);
    if projected != config.hidden_size {
        let supported = format!("{} (hidden_size)", config.hidden_size);
        return Err(unsupported("word_embed_proj_dim", projected, supported));
    }
    config.ffn = FfnKind::Plain(read_activation(fields, "activation_function", "relu")?);
    config.position = Position::Learned { offset: 2 };
    let bias = fields.flag("enable_bias", true)?;
    (config.qkv_bias, config.out_bias, config.ffn_bias) = (bias, bias, bias);
    (config.bos_token, config.eos_tokens) = (Some(2), vec![2]);
    config.pad_token = Some(1);
    Ok(config)
}

pub(super) fn read_bloom(fields: Fields<'_>) -> Result<ModelConfig, ConfigError> {
    fields.require_flag("apply_residual_connection_post_layernorm", false, false)?;
    let defaults = Defaults {
        hidden_names: &["n_embed", "hidden_size"],
        vocab_size: 250_880,
        hidden_size: 64,
        num_layers: 2,
        num_heads: 8,
        ffn_size: 1,
        max_positions: 2_048,
        tie_embeddings: true,
    };
    let mut config = read_sizes(Family::Bloom, fields, defaults)?;
    config.ffn_size = 4 * config.hidden_size;
    if config.ffn_size > K_MAX {
        let name = fields.spelling(&["n_embed", "hidden_size"]);
        return Err(field_error(
            name,
            format!("1..={}", K_MAX / 4),
            config.hidden_size,
        ));
    }
    config.norm_eps = fields.positive("layer_norm_epsilon", Some(1e-5))? as f32;
    config.ffn = FfnKind::Plain(Activation::GeluTanh);
    config.position = Position::Alibi;
    (config.qkv_bias, config.out_bias, config.ffn_bias) = (true, true, true);
    config.embedding_norm = true;
    (config.bos_token, config.eos_tokens) = (Some(1), vec![2]);
    Ok(config)
}

/// StarCoder 2: Llama's attention between norms with bias, and a plain feed-forward.
pub(super) fn read_starcoder2(fields: Fields<'_>) -> Result<ModelConfig, ConfigError> {
    let defaults = Defaults {
        hidden_names: &["hidden_size"],
        vocab_size: 49_152,
        hidden_size: 3_072,
        num_layers: 30,
        num_heads: 24,
        ffn_size: 12_288,
        max_positions: 4_096,
        tie_embeddings: true,
    };
    let mut config = read_sizes(Family::Starcoder2, fields, defaults)?;
    config.num_kv_heads = fields.size("num_key_value_heads", 2, config.num_heads)?;
    config.norm_eps = fields.positive("norm_epsilon", Some(1e-5))? as f32;
    config.ffn = FfnKind::Plain(read_activation(fields, "hidden_act", "gelu_pytorch_tanh")?);
    let bias = fields.flag("use_bias", true)?;
    (config.qkv_bias, config.out_bias, config.ffn_bias) = (bias, bias, bias);
    config.position = rope::read_position(fields, &mut config, 10_000.0)?;
    config.sliding_windows = vec![read_window(fields, None)?; config.num_layers];
    (config.bos_token, config.eos_tokens) = (Some(50_256), vec![50_256]);
    Ok(config)
}
