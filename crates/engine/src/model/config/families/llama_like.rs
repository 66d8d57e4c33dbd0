//! Families built as Llama is: rotary embedding, RMS norms before the blocks, a gated feed-forward.

use dualgrain_format::K_MAX;
use serde_json::Value;

use crate::model::config::fields::{Fields, factor, field_error};
use crate::model::config::layer_types::{every_nth_is_full, read_layer_types};
use crate::model::config::rope;
use crate::model::config::sizes::{Defaults, read_activation, read_sizes, read_window};
use crate::{ConfigError, Family, FfnKind, ModelConfig, NormKind, QkNorm};

pub(super) fn read_llama_like(family: Family, fields: Fields<'_>) -> Result<ModelConfig, ConfigError> {
    let mut config = read_sizes(family, fields, defaults(family))?;
    read_head_sizes(&mut config, fields)?;
    config.norm = NormKind::Rms;
    let eps = match family {
        Family::Phi3 | Family::Olmo2 | Family::Olmo3 => 1e-5,
        Family::Mixtral | Family::Olmoe | Family::Glm4Moe | Family::GptOss => 1e-5,
        Family::Glm | Family::Glm4 => 1.5625e-7,
        _ => 1e-6,
    };
    config.norm_eps = fields.positive("rms_norm_eps", Some(eps))? as f32;
    config.ffn = FfnKind::Gated(read_activation(fields, "hidden_act", "silu")?);
    let theta = match family {
        Family::SmolLm3 => 2e6,
        Family::Mixtral => 1e6,
        Family::Olmo3 => 5e5,
        Family::GptOss => 1.5e5,
        _ => 1e4,
    };
    config.position = rope::read_position(fields, &mut config, theta)?;
    config.qk_norm = match family {
        Family::Qwen3 | Family::Qwen3Moe => QkNorm::Heads,
        Family::Glm4Moe if fields.flag("use_qk_norm", false)? => QkNorm::Heads,
        Family::Olmo2 | Family::Olmo3 | Family::Olmoe => QkNorm::Rows,
        _ => QkNorm::None,
    };
    config.rotates_neighbours = matches!(family, Family::Glm | Family::Glm4);
    read_biases(&mut config, fields)?;
    (config.bos_token, config.eos_tokens) = usual_tokens(family);
    if family == Family::SmolLm3 {
        config.rotated_layers = read_rotated_layers(fields, config.num_layers)?;
    }
    config.sliding_windows = read_windows(&config, fields)?;
    if family == Family::Olmo3 {
        // A stretched rope is that of the layers without windows.
        let theta = fields.positive("rope_theta", Some(theta))?;
        config.local_rope = Some(rope::read_local(fields, &config, theta)?);
    }
    if family == Family::Olmoe {
        fields.require_null("clip_qkv")?;
    }
    if family == Family::Granite {
        read_multipliers(&mut config, fields)?;
    }
    Ok(config)
}

fn defaults(family: Family) -> Defaults {
    let llama = Defaults {
        hidden_names: &["hidden_size"],
        vocab_size: 32_000,
        hidden_size: 4_096,
        num_layers: 32,
        num_heads: 32,
        ffn_size: 11_008,
        max_positions: 2_048,
        tie_embeddings: false,
    };
    match family {
        Family::Mistral => Defaults {
            ffn_size: 14_336,
            max_positions: 131_072,
            ..llama
        },
        Family::Qwen2 | Family::Qwen3 => Defaults {
            vocab_size: 151_936,
            ffn_size: 22_016,
            max_positions: 32_768,
            ..llama
        },
        Family::Phi3 => Defaults {
            vocab_size: 32_064,
            hidden_size: 3_072,
            ffn_size: 8_192,
            max_positions: 4_096,
            ..llama
        },
        Family::SmolLm3 => Defaults {
            vocab_size: 128_256,
            hidden_size: 2_048,
            num_layers: 36,
            num_heads: 16,
            max_positions: 32_768,
            tie_embeddings: true,
            ..llama
        },
        Family::Olmo2 | Family::Olmo3 => Defaults {
            vocab_size: 50_304,
            ..llama
        },
        Family::Glm | Family::Glm4 => Defaults {
            vocab_size: 151_552,
            num_layers: 40,
            ffn_size: 13_696,
            max_positions: 131_072,
            ..llama
        },
        _ => of_mixture(family, llama),
    }
}

fn of_mixture(family: Family, llama: Defaults) -> Defaults {
    match family {
        Family::Mixtral => Defaults {
            ffn_size: 14_336,
            max_positions: 131_072,
            ..llama
        },
        Family::Qwen2Moe => Defaults {
            vocab_size: 151_936,
            hidden_size: 2_048,
            num_layers: 24,
            num_heads: 16,
            ffn_size: 5_632,
            max_positions: 32_768,
            ..llama
        },
        Family::Qwen3Moe => Defaults {
            vocab_size: 151_936,
            hidden_size: 2_048,
            num_layers: 24,
            ffn_size: 6_144,
            max_positions: 32_768,
            ..llama
        },
        Family::Olmoe => Defaults {
            vocab_size: 50_304,
            hidden_size: 2_048,
            num_layers: 16,
            num_heads: 16,
            ffn_size: 2_048,
            max_positions: 4_096,
            ..llama
        },
        Family::Glm4Moe => Defaults {
            vocab_size: 151_552,
            num_layers: 46,
            num_heads: 96,
            ffn_size: 10_944,
            max_positions: 131_072,
            ..llama
        },
        Family::GptOss => Defaults {
            vocab_size: 201_088,
            hidden_size: 2_880,
            num_layers: 36,
            num_heads: 64,
            ffn_size: 2_880,
            max_positions: 131_072,
            ..llama
        },
        _ => llama,
    }
}

fn read_head_sizes(config: &mut ModelConfig, fields: Fields<'_>) -> Result<(), ConfigError> {
    let kv_heads = match config.family {
        Family::Mistral | Family::Mixtral | Family::Glm4Moe | Family::GptOss => 8,
        Family::Qwen2Moe => 16,
        Family::Qwen2 | Family::Qwen3 => 32,
        Family::SmolLm3 | Family::Qwen3Moe => 4,
        Family::Glm | Family::Glm4 => 2,
        _ => config.num_heads,
    };
    // An explicit null means "as many as query heads", a missing field the family's default.
    config.num_kv_heads = match fields.0.get("num_key_value_heads") {
        Some(Value::Null) => config.num_heads,
        _ => fields.size("num_key_value_heads", kv_heads, config.num_heads)?,
    };
    let head_dim = match config.family {
        Family::Qwen3 | Family::Glm | Family::Glm4 => 128,
        Family::GptOss => 64,
        _ => config.head_dim,
    };
    config.head_dim = fields.size("head_dim", head_dim, K_MAX)?;
    Ok(())
}

fn read_biases(config: &mut ModelConfig, fields: Fields<'_>) -> Result<(), ConfigError> {
    match config.family {
        Family::Llama | Family::Qwen3 | Family::Granite | Family::SmolLm3 => {
            config.qkv_bias = fields.flag("attention_bias", false)?;
            config.out_bias = config.qkv_bias;
            config.ffn_bias = config.family != Family::Qwen3 && fields.flag("mlp_bias", false)?;
        }
        Family::Glm | Family::Glm4 => config.qkv_bias = fields.flag("attention_bias", true)?,
        Family::Olmo2 | Family::Olmo3 | Family::Olmoe | Family::Qwen3Moe => {
            config.qkv_bias = fields.flag("attention_bias", false)?;
            config.out_bias = config.qkv_bias;
        }
        Family::Glm4Moe => config.qkv_bias = fields.flag("attention_bias", false)?,
        Family::Qwen2Moe => config.qkv_bias = fields.flag("qkv_bias", true)?,
        Family::GptOss => {
            config.qkv_bias = fields.flag("attention_bias", true)?;
            config.out_bias = config.qkv_bias;
            config.ffn_bias = true;
        }
        family => config.qkv_bias = family == Family::Qwen2,
    }
    Ok(())
}

/// First and last tokens that transformers assumes.
fn usual_tokens(family: Family) -> (Option<u32>, Vec<u32>) {
    match family {
        Family::Llama | Family::Mistral | Family::Granite | Family::Mixtral => (Some(1), vec![2]),
        Family::Phi3 => (Some(1), vec![32_000]),
        Family::SmolLm3 => (Some(128_000), vec![128_001]),
        Family::Glm | Family::Glm4 => (None, vec![151_329, 151_336, 151_338]),
        Family::Olmo2 | Family::Olmo3 | Family::Olmoe => (None, vec![50_279]),
        _ => (None, Vec::new()),
    }
}

/// Granite's factors. A residual stream that is `m` times smaller goes through its norms unchanged if eps is `m^2` times smaller: so what
/// each block adds need not be multiplied, only the embedding is divided.
fn read_multipliers(config: &mut ModelConfig, fields: Fields<'_>) -> Result<(), ConfigError> {
    let read = |name: &str| fields.positive(name, Some(1.0));
    let residual = read("residual_multiplier")?;
    config.stream_divisor = residual;
    factor(
        "residual_multiplier",
        residual,
        f64::from(config.stream_norm_eps()),
    )?;
    let embedding = read("embedding_multiplier")?;
    config.embedding_scale = factor("embedding_multiplier", embedding, embedding / residual)?;
    let logits = read("logits_scaling")?;
    config.head_scale = factor("logits_scaling", logits, 1.0 / logits)?;
    let attention = read("attention_multiplier")?;
    config.attention_scale = Some(factor("attention_multiplier", attention, attention)?);
    Ok(())
}

/// SmolLM3: `no_rope_layers` has 1 where a layer is rotated; by itself every fourth is not.
fn read_rotated_layers(fields: Fields<'_>, num_layers: usize) -> Result<Vec<bool>, ConfigError> {
    let interval = fields.size("no_rope_layer_interval", 4, usize::MAX)?;
    let Some(listed) = fields.counts("no_rope_layers")? else {
        return Ok((1..=num_layers).map(|number| number % interval != 0).collect());
    };
    match listed.get(..num_layers) {
        Some(listed) => Ok(listed.iter().map(|&rotated| rotated != 0).collect()),
        None => {
            let got = format!("a list of {}", listed.len());
            Err(field_error(
                "no_rope_layers",
                format!("a list of {num_layers}"),
                got,
            ))
        }
    }
}

fn read_windows(config: &ModelConfig, fields: Fields<'_>) -> Result<Vec<Option<usize>>, ConfigError> {
    let num_layers = config.num_layers;
    let window = |usual| read_window(fields, usual);
    match config.family {
        Family::Mistral => Ok(vec![window(Some(4_096))?; num_layers]),
        Family::Phi3 | Family::Mixtral => Ok(vec![window(None)?; num_layers]),
        Family::Qwen3Moe => {
            let on = fields.flag("use_sliding_window", false)?;
            Ok(vec![if on { window(Some(4_096))? } else { None }; num_layers])
        }
        // A window that is switched off is not looked at: such fields hold anything.
        Family::Qwen2 | Family::Qwen3 | Family::Qwen2Moe => {
            let on = fields.flag("use_sliding_window", false)?;
            let window = if on { window(Some(4_096))? } else { None };
            let first = if window.is_some() {
                fields.count("max_window_layers")?.unwrap_or(28)
            } else {
                0
            };
            // The mixtures have windows in every second of their first layers, the others in all of their last ones.
            let of_mixture = config.family == Family::Qwen2Moe;
            let has_window = |layer: usize| match of_mixture {
                true => layer < first && layer.is_multiple_of(2),
                false => layer >= first,
            };
            read_layer_types(fields, num_layers, window, &has_window)
        }
        Family::SmolLm3 => {
            let on = fields.flag("use_sliding_window", false)?;
            let window = if on { window(None)? } else { None };
            read_layer_types(fields, num_layers, window, &|layer| !config.rotated_layers[layer])
        }
        Family::Olmo3 => {
            let has_window = every_nth_is_full(4);
            read_layer_types(fields, num_layers, window(Some(4_096))?, &has_window)
        }
        Family::GptOss => {
            let has_window = every_nth_is_full(2);
            read_layer_types(fields, num_layers, window(Some(128))?, &has_window)
        }
        _ => Ok(vec![None; num_layers]),
    }
}
