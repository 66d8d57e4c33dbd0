//! What a model is, as metadata.

use std::path::Path;

use dualgrain_engine::{Activation, FfnKind, ModelConfig};
use dualgrain_format::LinearScheme;
use dualgrain_format::gguf::GgufValue;

use crate::card::model_name;
use crate::error::ExportError;
use crate::formats::ExportFormat;
use crate::gguf::tokenizer::Metadata;
use crate::gguf::{experts, rope};
use crate::source::Source;

/// Numbers of `general.file_type`: what most of a file is.
mod file_type {
    pub const Q4_1: u32 = 3;
    pub const Q8_0: u32 = 7;
    pub const F16: u32 = 1;
}

/// What a file says of the model in `dir`, apart from its tokenizer.
#[derive(Debug)]
pub struct Described {
    /// Metadata by name.
    pub metadata: Metadata,
    /// Divisors of the frequencies, where they are a tensor.
    pub divisors: Option<Vec<f32>>,
    /// What a person should know, a sentence each.
    pub notices: Vec<String>,
}

/// Describes the model for llama.cpp's `architecture`.
///
/// # Errors
/// A part of the model that this architecture computes otherwise.
pub fn describe(source: &Source, dir: &Path, architecture: &str) -> Result<Described, ExportError> {
    let config = &source.config;
    check(config, architecture)?;
    let text = |text: &str| GgufValue::Text(text.to_owned());
    let name = model_name(dir);
    let mut metadata = vec![
        ("general.architecture".to_owned(), text(architecture)),
        ("general.name".to_owned(), text(&name)),
        ("general.file_type".to_owned(), GgufValue::U32(file_type(source))),
        ("general.quantization_version".to_owned(), GgufValue::U32(2)),
    ];
    let (context, notices) = context(config);
    let (rope, divisors) = rope::settings(config, architecture)?;
    let of_mixture = experts::settings(config, architecture)?;
    let settings = sizes(config, context)?.into_iter().chain(rope).chain(of_mixture);
    metadata.extend(settings.map(|(name, value)| (format!("{architecture}.{name}"), value)));
    Ok(Described {
        metadata,
        divisors,
        notices,
    })
}

fn sizes(config: &ModelConfig, context: usize) -> Result<rope::Settings, ExportError> {
    let counts = [
        ("vocab_size", config.vocab_size),
        ("context_length", context),
        ("embedding_length", config.hidden_size),
        ("block_count", config.num_layers),
        ("feed_forward_length", config.ffn_size),
        ("attention.head_count", config.num_heads),
        ("attention.head_count_kv", config.num_kv_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
    ];
    let value = |(name, count): (&'static str, usize)| match u32::try_from(count) {
        Ok(count) => Ok((name, GgufValue::U32(count))),
        Err(_) => Err(unsupported(format!("{name} {count}"), "less than 2^32")),
    };
    let mut settings = counts.into_iter().map(value).collect::<Result<Vec<_>, _>>()?;
    settings.push((
        "attention.layer_norm_rms_epsilon",
        GgufValue::F32(config.norm_eps),
    ));
    Ok(settings)
}

/// Positions of the file: llama.cpp's architectures see all tokens, so a context ends where a window would begin to matter.
fn context(config: &ModelConfig) -> (usize, Vec<String>) {
    let windows = config.sliding_windows.iter().flatten();
    match windows.min().filter(|&&window| window < config.max_positions) {
        None => (config.max_positions, Vec::new()),
        Some(&window) => {
            let notice = format!(
                "the file says a context of {window} tokens, not {}: llama.cpp has no windows in this architecture",
                config.max_positions
            );
            (window, vec![notice])
        }
    }
}

fn check(config: &ModelConfig, architecture: &str) -> Result<(), ExportError> {
    if config.ffn != FfnKind::Gated(Activation::Silu) {
        return Err(unsupported(
            format!("the feed-forward {:?}", config.ffn),
            "a gated one with SiLU",
        ));
    }
    let (rotary, head) = (config.rotary_dim, config.head_dim);
    if rotary != head {
        return Err(unsupported(
            format!("{rotary} of {head} elements of a head are rotated"),
            "all",
        ));
    }
    if architecture != "llama" && (config.out_bias || config.ffn_bias) {
        return Err(unsupported(
            format!("a {architecture} whose output projection has a bias"),
            "none there",
        ));
    }
    let (queries, hidden) = (config.q_size(), config.hidden_size);
    if matches!(architecture, "qwen2" | "qwen2moe") && queries != hidden {
        return Err(unsupported(
            format!("a {architecture} with queries of {queries} elements and hidden_size {hidden}"),
            "as many as hidden_size",
        ));
    }
    Ok(())
}

fn file_type(source: &Source) -> u32 {
    let has = |is: fn(&LinearScheme) -> bool| source.linears.iter().any(|linear| is(&linear.scheme));
    match () {
        () if has(|scheme| matches!(scheme, LinearScheme::W4 { .. })) => file_type::Q4_1,
        () if has(|scheme| *scheme == LinearScheme::W8) => file_type::Q8_0,
        () => file_type::F16,
    }
}

fn unsupported(what: String, expected: &str) -> ExportError {
    ExportError::Unsupported {
        format: ExportFormat::Gguf,
        what,
        expected: expected.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_ends_where_a_window_would_matter() {
        let config = |window: &str| {
            let text = format!(
                r#"{{"model_type": "mistral", "max_position_embeddings": 8192, "sliding_window": {window}}}"#
            );
            ModelConfig::from_json(&text).unwrap()
        };
        assert_eq!(context(&config("null")), (8192, Vec::new()));
        let (context, notices) = context(&config("4096"));
        assert_eq!((context, notices.len()), (4096, 1));
    }

    #[test]
    fn another_activation_is_refused_by_name() {
        let config = ModelConfig::from_json(r#"{"model_type": "llama", "hidden_act": "relu"}"#).unwrap();
        let error = check(&config, "llama").unwrap_err().to_string();
        assert!(error.contains("Relu") && error.contains("SiLU"), "{error}");
    }
}
