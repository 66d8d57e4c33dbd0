//! Gemma 1, 2 and 3: norms whose stored weights lack one, a scaled embedding, and from 2 on norms behind attention and feed-forward.

use std::ops::RangeInclusive;

use dualgrain_device::Activation;
use dualgrain_format::K_MAX;

use crate::model::config::fields::{Fields, factor, field_error};
use crate::model::config::layer_types::{every_nth_is_full, read_layer_types};
use crate::model::config::rope;
use crate::model::config::sizes::{Defaults, read_activation, read_sizes, read_window};
use crate::{ConfigError, Family, FfnKind, ModelConfig, NormKind, QkNorm};

pub(super) fn read_gemma(family: Family, fields: Fields<'_>) -> Result<ModelConfig, ConfigError> {
    fields.require_flag("use_bidirectional_attention", false, false)?;
    let mut config = read_sizes(family, fields, defaults(family))?;
    let kv_heads = if family == Family::Gemma { 16 } else { 4 };
    config.num_kv_heads = fields.size("num_key_value_heads", kv_heads, config.num_heads)?;
    config.head_dim = fields.size("head_dim", 256, K_MAX)?;
    config.norm = NormKind::Rms;
    config.norm_offset = 1.0;
    config.norm_eps = fields.positive("rms_norm_eps", Some(1e-6))? as f32;
    config.ffn = FfnKind::Gated(read_gelu(family, fields)?);
    config.qkv_bias = fields.flag("attention_bias", false)?;
    config.out_bias = config.qkv_bias;
    (config.bos_token, config.eos_tokens, config.pad_token) = (Some(2), vec![1], Some(0));
    let theta = if family == Family::Gemma3 { 1e6 } else { 1e4 };
    config.position = rope::read_position(fields, &mut config, theta)?;
    let embedding_scale = (config.hidden_size as f64).sqrt();
    if family == Family::Gemma {
        config.embedding_scale = embedding_scale as f32;
        return Ok(config);
    }
    // All that is added to the stream comes from norms: they and the epsilons take the factor, and the embedding stays as it is.
    config.stream_divisor = embedding_scale;
    let scalar = fields.positive("query_pre_attn_scalar", Some(256.0))?;
    config.attention_scale = Some(factor("query_pre_attn_scalar", scalar, 1.0 / scalar.sqrt())?);
    read_windows(&mut config, fields)?;
    read_caps(&mut config, fields)?;
    if family == Family::Gemma3 {
        config.qk_norm = QkNorm::Heads;
        let theta = fields.positive("rope_local_base_freq", Some(1e4))?;
        config.local_rope = Some(rope::read_local(fields, &config, theta)?);
    }
    Ok(config)
}

fn defaults(family: Family) -> Defaults {
    let gemma2 = Defaults {
        hidden_names: &["hidden_size"],
        vocab_size: 256_000,
        hidden_size: 2_304,
        num_layers: 26,
        num_heads: 8,
        ffn_size: 9_216,
        max_positions: 8_192,
        tie_embeddings: true,
    };
    match family {
        Family::Gemma => Defaults {
            hidden_size: 3_072,
            num_layers: 28,
            num_heads: 16,
            ffn_size: 24_576,
            ..gemma2
        },
        Family::Gemma3 => Defaults {
            vocab_size: 262_208,
            max_positions: 131_072,
            ..gemma2
        },
        _ => gemma2,
    }
}

/// `hidden_activation`, or `hidden_act`, in which the first files of Gemma wrote `gelu` for its approximation.
fn read_gelu(family: Family, fields: Fields<'_>) -> Result<Activation, ConfigError> {
    let name = fields.spelling(&["hidden_activation", "hidden_act"]);
    match read_activation(fields, name, "gelu_pytorch_tanh")? {
        Activation::Gelu if family == Family::Gemma => Ok(Activation::GeluTanh),
        activation => Ok(activation),
    }
}

/// Every second layer of Gemma 2 has no window, and every sixth of Gemma 3, unless they are listed.
fn read_windows(config: &mut ModelConfig, fields: Fields<'_>) -> Result<(), ConfigError> {
    let interval = match config.family {
        Family::Gemma3 => fields.size("sliding_window_pattern", 6, usize::MAX)?,
        _ => 2,
    };
    let window = read_window(fields, Some(4_096))?;
    let has_window = every_nth_is_full(interval);
    config.sliding_windows = read_layer_types(fields, config.num_layers, window, &has_window)?;
    Ok(())
}

/// Caps that 32-bit floats can be divided by and multiplied with, whatever the score is.
const CAPS: RangeInclusive<f64> = 1e-3..=1e6;

/// What scores and logits are capped at; null caps nothing.
fn read_caps(config: &mut ModelConfig, fields: Fields<'_>) -> Result<(), ConfigError> {
    let cap = |name: &str, usual: f64| {
        let is_there = fields.0.contains_key(name);
        match (fields.number(name)?, config.family) {
            (None, Family::Gemma2) if !is_there => Ok(Some(usual as f32)),
            (None, _) => Ok(None),
            (Some(cap), _) if CAPS.contains(&cap) => Ok(Some(cap as f32)),
            (Some(cap), _) => Err(field_error(
                name,
                format!("null, or a number from {} to {}", CAPS.start(), CAPS.end()),
                cap,
            )),
        }
    };
    (config.score_cap, config.logit_cap) = (
        cap("attn_logit_softcapping", 50.0)?,
        cap("final_logit_softcapping", 30.0)?,
    );
    Ok(())
}
