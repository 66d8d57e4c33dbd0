//! From the fields of config.json to a [`ModelConfig`], family by family, with the defaults of transformers.

use dualgrain_device::{Activation, MAX_HEAD_DIM};
use dualgrain_format::{K_MAX, QuantizationConfig};
use serde_json::{Map, Value};

use crate::model::config::fields::{Fields, field_error, unsupported};
use crate::model::config::rope;
use crate::{ConfigError, Family, FfnKind, FloatType, ModelConfig, NormKind, Position};

const MAX_LAYERS: usize = 4_096;
const MAX_VOCAB: usize = 1 << 24;
const MAX_POSITIONS: usize = 1 << 30;

pub(super) fn read(object: &Map<String, Value>) -> Result<ModelConfig, ConfigError> {
    let fields = Fields(object);
    let family = read_family(fields)?;
    refuse_experts(fields)?;
    let mut config = match family {
        Family::Llama | Family::Mistral | Family::Qwen2 | Family::Qwen3 => read_llama_like(family, fields)?,
        Family::Opt => read_opt(fields)?,
        Family::Bloom => read_bloom(fields)?,
    };
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
    if let Some(value) = fields.value("quantization_config") {
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
        Some(block) if !config.ffn_size.is_multiple_of(block) => {
            let expected = format!("a divisor of the feed-forward's width ({})", config.ffn_size);
            Err(field_error("quantization_config.hadamard_down", expected, block))
        }
        _ => Ok(()),
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
            .find(|family| family.class_prefix().eq_ignore_ascii_case(model_type.trim()))
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

/// Sizes that stand under the same names in all but BLOOM, and everything at its most common value.
fn read_sizes(family: Family, fields: Fields<'_>, defaults: Defaults) -> Result<ModelConfig, ConfigError> {
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
        family,
        vocab_size: fields.size("vocab_size", defaults.vocab_size, MAX_VOCAB)?,
        hidden_size,
        num_layers,
        num_heads,
        num_kv_heads: num_heads,
        head_dim: hidden_size / num_heads,
        ffn_size: fields.size(
            fields.spelling(&["intermediate_size", "ffn_dim"]),
            defaults.ffn_size,
            K_MAX,
        )?,
        max_positions: fields.size(positions_name, defaults.max_positions, MAX_POSITIONS)?,
        norm: NormKind::Layer,
        norm_eps: 1e-5,
        ffn: FfnKind::Plain(Activation::Relu),
        position: Position::None,
        sliding_windows: vec![None; num_layers],
        qkv_bias: false,
        out_bias: false,
        ffn_bias: false,
        qk_norm: false,
        hadamard_down: None,
        embedding_norm: false,
        tie_embeddings: fields.flag("tie_word_embeddings", defaults.tie_embeddings)?,
        dtype: None,
        bos_token: None,
        eos_tokens: Vec::new(),
        pad_token: None,
        quantization: None,
        notices: Vec::new(),
    })
}

/// What transformers assumes where config.json is silent.
struct Defaults {
    hidden_names: &'static [&'static str],
    vocab_size: usize,
    hidden_size: usize,
    num_layers: usize,
    num_heads: usize,
    ffn_size: usize,
    max_positions: usize,
    tie_embeddings: bool,
}

fn read_llama_like(family: Family, fields: Fields<'_>) -> Result<ModelConfig, ConfigError> {
    let (vocab_size, ffn_size, max_positions) = match family {
        Family::Llama => (32_000, 11_008, 2_048),
        Family::Mistral => (32_000, 14_336, 131_072),
        _ => (151_936, 22_016, 32_768),
    };
    let defaults = Defaults {
        hidden_names: &["hidden_size"],
        vocab_size,
        hidden_size: 4_096,
        num_layers: 32,
        num_heads: 32,
        ffn_size,
        max_positions,
        tie_embeddings: false,
    };
    let mut config = read_sizes(family, fields, defaults)?;
    let (kv_heads, head_dim) = match family {
        Family::Llama => (config.num_heads, config.head_dim),
        Family::Mistral => (8, config.head_dim),
        Family::Qwen2 => (32, config.head_dim),
        _ => (32, 128),
    };
    // An explicit null means "as many as query heads", a missing field the family's default.
    config.num_kv_heads = match fields.0.get("num_key_value_heads") {
        Some(Value::Null) => config.num_heads,
        _ => fields.size("num_key_value_heads", kv_heads, config.num_heads)?,
    };
    config.head_dim = fields.size("head_dim", head_dim, K_MAX)?;
    config.norm = NormKind::Rms;
    config.norm_eps = fields.positive("rms_norm_eps", Some(1e-6))? as f32;
    config.ffn = FfnKind::Gated(read_activation(fields, "hidden_act", "silu")?);
    let heads = rope::Heads {
        head_dim: config.head_dim,
        max_positions: config.max_positions,
    };
    let rope = rope::read(fields, heads)?;
    config.max_positions = config.max_positions.max(rope.reach()).min(MAX_POSITIONS);
    config.position = Position::Rope(rope);
    config.qk_norm = family == Family::Qwen3;
    match family {
        Family::Llama | Family::Qwen3 => {
            config.qkv_bias = fields.flag("attention_bias", false)?;
            config.out_bias = config.qkv_bias;
            config.ffn_bias = family == Family::Llama && fields.flag("mlp_bias", false)?;
        }
        _ => config.qkv_bias = family == Family::Qwen2,
    }
    if matches!(family, Family::Llama | Family::Mistral) {
        (config.bos_token, config.eos_tokens) = (Some(1), vec![2]);
    }
    config.sliding_windows = read_windows(family, fields, config.num_layers)?;
    Ok(config)
}

fn read_windows(
    family: Family,
    fields: Fields<'_>,
    num_layers: usize,
) -> Result<Vec<Option<usize>>, ConfigError> {
    let window = || match fields.0.get("sliding_window") {
        Some(Value::Null) => Ok(None),
        _ => fields.size("sliding_window", 4_096, MAX_POSITIONS).map(Some),
    };
    match family {
        Family::Mistral => Ok(vec![window()?; num_layers]),
        // A window that is switched off is not looked at: such fields hold anything.
        Family::Qwen2 | Family::Qwen3 => {
            let on = fields.flag("use_sliding_window", false)?;
            read_layer_types(fields, num_layers, if on { window()? } else { None })
        }
        _ => Ok(vec![None; num_layers]),
    }
}

/// `layer_types` if listed, else windows from layer `max_window_layers` on.
fn read_layer_types(
    fields: Fields<'_>,
    num_layers: usize,
    window: Option<usize>,
) -> Result<Vec<Option<usize>>, ConfigError> {
    let Some(types) = fields.texts("layer_types")? else {
        if window.is_none() {
            return Ok(vec![None; num_layers]);
        }
        let first = fields.count("max_window_layers")?.unwrap_or(28);
        return Ok((0..num_layers)
            .map(|layer| window.filter(|_| layer >= first))
            .collect());
    };
    if types.len() != num_layers {
        let expected = format!("a list of {num_layers}");
        return Err(field_error(
            "layer_types",
            expected,
            format!("a list of {}", types.len()),
        ));
    }
    let windows = types.iter().map(|&kind| match (kind, window) {
        ("full_attention", _) => Ok(None),
        ("sliding_attention", Some(window)) => Ok(Some(window)),
        ("sliding_attention", None) => Err(field_error(
            "layer_types",
            "a sliding_window for sliding_attention".into(),
            "none",
        )),
        _ => Err(unsupported(
            "layer_types",
            kind,
            "full_attention, sliding_attention",
        )),
    });
    windows.collect()
}

fn read_opt(fields: Fields<'_>) -> Result<ModelConfig, ConfigError> {
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

fn read_bloom(fields: Fields<'_>) -> Result<ModelConfig, ConfigError> {
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

fn read_activation(fields: Fields<'_>, name: &str, default: &'static str) -> Result<Activation, ConfigError> {
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
    if matches!(config.position, Position::Rope(_)) && !head_dim.is_multiple_of(2) {
        return field("head_dim", "an even number (rotary embedding)".into(), head_dim);
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
