//! gpt-oss: Llama's blocks with sinks in attention, a gate with limits and experts for every token.

use dualgrain_device::{Activation, GateLimit};
use serde_json::json;

use super::llama_like::read_llama_like;
use crate::model::config::fields::{Fields, factor, field_error, unsupported};
use crate::{ConfigError, Family, FfnKind, ModelConfig};

/// What the gate's sigmoid multiplies its input by.
const GAIN: f64 = 1.702;

pub(super) fn read_gpt_oss(fields: Fields<'_>) -> Result<ModelConfig, ConfigError> {
    let has_rope = ["rope_parameters", "rope_scaling"].map(|name| fields.value(name).is_some());
    let mut config = match has_rope {
        [false, false] => {
            let mut with_rope = fields.0.clone();
            with_rope.insert("rope_parameters".into(), usual_rope());
            read_llama_like(Family::GptOss, Fields(&with_rope))?
        }
        _ => read_llama_like(Family::GptOss, fields)?,
    };
    let gain = fields.positive("swiglu_alpha", Some(GAIN))?;
    if gain != GAIN {
        return Err(unsupported("swiglu_alpha", gain, GAIN));
    }
    let limit = match fields.value("swiglu_limit") {
        None => GateLimit::USUAL,
        Some(_) => {
            let limit = fields.positive("swiglu_limit", None)?;
            let no_limit = || field_error("swiglu_limit", "a 32-bit float above 0".into(), limit);
            GateLimit::new(factor("swiglu_limit", limit, limit)?).ok_or_else(no_limit)?
        }
    };
    config.ffn = FfnKind::Gated(Activation::Clamped(limit));
    config.attention_sinks = true;
    Ok(config)
}

/// How positions are stretched where nothing says so.
fn usual_rope() -> serde_json::Value {
    json!({
        "rope_type": "yarn",
        "factor": 32.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": false,
        "original_max_position_embeddings": 4096,
    })
}
