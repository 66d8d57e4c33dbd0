//! From the fields of config.json to a [`ModelConfig`], family by family, with the defaults of transformers.

mod gemma;
mod gpt_oss;
mod llama_like;
mod parallel;
mod ungated;

use dualgrain_device::MAX_HEAD_DIM;
use dualgrain_format::foreign::ForeignScheme;
use dualgrain_format::{K_MAX, QuantizationConfig};
use serde_json::{Map, Value};

use crate::model::config::fields::{Fields, field_error, unsupported};
use crate::model::config::mixture::{is_mixture, read_mixture};
use crate::{ConfigError, Family, FloatType, ModelConfig, Position};
use gemma::read_gemma;
use gpt_oss::read_gpt_oss;
use llama_like::read_llama_like;
use parallel::{read_cohere, read_gpt_neox};
use ungated::{read_bloom, read_opt, read_starcoder2};

pub(in crate::model::config) fn read(object: &Map<String, Value>) -> Result<ModelConfig, ConfigError> {
    match text_part(object) {
        Some(text) => read_text(&text),
        None => read_text(object),
    }
}

/// The configuration of the text model inside Gemma 3 with pictures: its own fields, and what stands beside them for the whole model.
fn text_part(object: &Map<String, Value>) -> Option<Map<String, Value>> {
    if object.get("model_type")?.as_str()? != "gemma3" {
        return None;
    }
    let classes = object.get("architectures").and_then(Value::as_array);
    let is_known = |class: &Value| class.as_str().is_some_and(|class| WITH_PICTURES.contains(&class));
    if !classes.is_none_or(|classes| classes.iter().all(is_known)) {
        return None;
    }
    let mut text = object.get("text_config")?.as_object()?.clone();
    let counts = |name: &str| name.ends_with("token_id") || OF_WHOLE.contains(&name);
    let of_whole = object
        .iter()
        .filter(|(name, value)| counts(name) && !value.is_null());
    text.extend(of_whole.map(|(name, value)| (name.clone(), value.clone())));
    text.entry("model_type").or_insert("gemma3_text".into());
    Some(text)
}

/// Classes that hold a text model whose configuration is `text_config`.
const WITH_PICTURES: [&str; 3] = [
    "Gemma3ForConditionalGeneration",
    "Gemma3Model",
    "Gemma3ForCausalLM",
];

/// Fields that count beside those of `text_config`.
const OF_WHOLE: [&str; 4] = [
    "quantization_config",
    "tie_word_embeddings",
    "dtype",
    "torch_dtype",
];

fn read_text(object: &Map<String, Value>) -> Result<ModelConfig, ConfigError> {
    let fields = Fields(object);
    let family = read_family(fields)?;
    if !is_mixture(family) {
        refuse_experts(fields)?;
    }
    let mut config = match family {
        Family::Opt => read_opt(fields)?,
        Family::Bloom => read_bloom(fields)?,
        Family::Starcoder2 => read_starcoder2(fields)?,
        Family::GptNeoX => read_gpt_neox(fields)?,
        Family::Cohere | Family::Cohere2 => read_cohere(family, fields)?,
        Family::GptOss => read_gpt_oss(fields)?,
        Family::Gemma | Family::Gemma2 | Family::Gemma3 => read_gemma(family, fields)?,
        _ => read_llama_like(family, fields)?,
    };
    if is_mixture(family) {
        config.mixture = Some(read_mixture(&config, fields)?);
    }
    config.dtype = read_dtype(fields)?;
    if fields.value("bos_token_id").is_some() {
        config.bos_token = fields.token("bos_token_id")?;
    }
    if fields.value("pad_token_id").is_some() {
        config.pad_token = fields.token("pad_token_id")?;
    }
    if fields.0.contains_key("eos_token_id") {
        config.eos_tokens = fields.tokens("eos_token_id")?;
    }
    if let Some(value) = ForeignScheme::own_value_in(fields.0)? {
        let quantization = QuantizationConfig::from_json(value)?;
        config.hadamard_down = quantization.hadamard_down;
        config.quantization = Some(quantization);
        check_linears(&config)?;
        check_hadamard(&config)?;
    }
    check_heads(&config)?;
    Ok(config)
}

/// A scheme for a linear that the model does not have was meant for another one.
fn check_linears(config: &ModelConfig) -> Result<(), ConfigError> {
    let listed = config.quantization.iter().flat_map(|q| q.linears.keys());
    match listed.into_iter().find(|name| !config.has_linear(name)) {
        None => Ok(()),
        Some(name) => Err(ConfigError::Field {
            field: "quantization_config.tensors".into(),
            expected: "linears of this model".into(),
            got: format!("`{name}`"),
        }),
    }
}

/// Whole blocks make up the input of Down.
fn check_hadamard(config: &ModelConfig) -> Result<(), ConfigError> {
    match config.hadamard_down {
        Some(block) => match config
            .ffn_widths()
            .into_iter()
            .find(|width| !width.is_multiple_of(block))
        {
            Some(width) => {
                let expected = format!("a divisor of the feed-forward's width ({width})");
                Err(field_error("quantization_config.hadamard_down", expected, block))
            }
            None => Ok(()),
        },
        None => Ok(()),
    }
}

/// `model_type` decides, as in transformers; `architectures` may only agree or stand in for it.
fn read_family(fields: Fields<'_>) -> Result<Family, ConfigError> {
    let architectures = fields.texts("architectures")?.unwrap_or_default();
    let refused = |got: &str| ConfigError::Architecture {
        got: got.to_owned(),
        supported: Family::ALL
            .map(|family| format!("{}ForCausalLM", family.class_prefix()))
            .join(", "),
    };
    let named = |name: &str| Family::ALL.into_iter().find(|family| is_class_of(*family, name));
    if let Some(unknown) = architectures.iter().find(|name| named(name).is_none()) {
        return Err(refused(unknown));
    }
    match fields.text("model_type")? {
        Some(model_type) => Family::ALL
            .into_iter()
            .find(|family| family.model_type().eq_ignore_ascii_case(model_type.trim()))
            .ok_or_else(|| refused(model_type)),
        None => architectures
            .first()
            .and_then(|name| named(name))
            .ok_or_else(|| refused("(neither `model_type` nor `architectures` is given)")),
    }
}

/// Whether a class is one of the family's: early conversions write LLaMAForCausalLM, and training wraps models in classes that add
/// to a name what their tensors add to the model.
fn is_class_of(family: Family, name: &str) -> bool {
    let name = name.trim().to_ascii_lowercase();
    let name = name.strip_prefix("fsdp").unwrap_or(&name);
    let kind = name.strip_prefix(&family.class_prefix().to_ascii_lowercase());
    let kinds = ["forcausallm", "model", "lmheadmodel", "forcausallmwithvaluehead"];
    kind.is_some_and(|kind| kinds.contains(&kind))
}

fn refuse_experts(fields: Fields<'_>) -> Result<(), ConfigError> {
    for name in ["num_experts", "num_local_experts", "n_routed_experts"] {
        match fields.count(name)? {
            None | Some(0) => {}
            Some(experts) => return Err(unsupported(name, experts, "0 (mixtures of experts are not)")),
        }
    }
    Ok(())
}

fn read_dtype(fields: Fields<'_>) -> Result<Option<FloatType>, ConfigError> {
    let text = fields.text(fields.spelling(&["dtype", "torch_dtype"]))?;
    let name = text.map(|text| text.trim().trim_start_matches("torch.").to_ascii_lowercase());
    match name.as_deref() {
        None | Some("auto") => Ok(None),
        Some("float32" | "float" | "fp32" | "f32") => Ok(Some(FloatType::F32)),
        Some("float16" | "half" | "fp16" | "f16") => Ok(Some(FloatType::F16)),
        Some("bfloat16" | "bf16") => Ok(Some(FloatType::Bf16)),
        Some(other) => Err(unsupported("dtype", other, "float32, float16, bfloat16")),
    }
}

fn check_heads(config: &ModelConfig) -> Result<(), ConfigError> {
    let ModelConfig {
        hidden_size,
        num_heads,
        num_kv_heads,
        head_dim,
        ..
    } = *config;
    let field = |name: &str, expected: String, got: usize| Err(field_error(name, expected, got));
    // Where head_dim is free (Mistral, Qwen) the hidden size need not divide.
    let head_dim_given = head_dim != hidden_size / num_heads;
    if !hidden_size.is_multiple_of(num_heads) && !head_dim_given {
        let expected = format!("a divisor of hidden_size ({hidden_size})");
        return field("num_attention_heads", expected, num_heads);
    }
    if !num_heads.is_multiple_of(num_kv_heads) {
        let expected = format!("a divisor of num_attention_heads ({num_heads})");
        return field("num_key_value_heads", expected, num_kv_heads);
    }
    let rotary_dim = config.rotary_dim;
    if matches!(config.position, Position::Rope(_)) && !rotary_dim.is_multiple_of(2) {
        let (name, got) = match rotary_dim == head_dim {
            true => ("head_dim", head_dim),
            false => ("partial_rotary_factor", rotary_dim),
        };
        return field(name, "an even number (rotary embedding)".into(), got);
    }
    if head_dim > MAX_HEAD_DIM {
        return field("head_dim", format!("at most {MAX_HEAD_DIM}"), head_dim);
    }
    match num_heads.checked_mul(head_dim) {
        Some(width) if width <= K_MAX => Ok(()),
        _ => field(
            "head_dim",
            format!("at most {} ({num_heads} heads)", K_MAX / num_heads),
            head_dim,
        ),
    }
}
