//! The tokenizer and the chat template as metadata.

use std::fs;
use std::path::Path;

use dualgrain_engine::ModelConfig;
use dualgrain_engine::tokenizer::Tokenizer;
use dualgrain_format::checkpoint::CheckpointError;
use dualgrain_format::gguf::GgufValue;
use serde_json::Value;

use crate::config_file::read_json;
use crate::error::ExportError;
use crate::formats::ExportFormat;
use crate::gguf::pre_tokenizer::{Words, words};
use crate::gguf::vocabulary::Vocabulary;

/// Metadata by name.
pub type Metadata = Vec<(String, GgufValue)>;

/// The tokenizer of the folder `dir`, and what a person should know of it.
///
/// # Errors
/// No tokenizer, or one that llama.cpp has no name for.
pub fn metadata(dir: &Path, config: &ModelConfig) -> Result<(Metadata, Vec<String>), ExportError> {
    let tokenizer = Tokenizer::load(dir, config.vocab_size)?;
    let json = tokenizer.to_json()?;
    let vocabulary = Vocabulary::new(&json, config.vocab_size).map_err(unsupported)?;
    let words = words(&json).map_err(unsupported)?;
    check_whole_words(&json, words)?;
    let mut entries = Entries::default();
    entries.words(words, &vocabulary);
    entries.tokens(&vocabulary);
    entries.special_tokens(&json, (&tokenizer, &vocabulary), config)?;
    if let Some(template) = chat_template(dir)? {
        entries.add("chat_template", GgufValue::Text(template));
    }
    Ok((entries.0, notices(&json, words)))
}

/// Metadata of the tokenizer in the making.
#[derive(Default)]
struct Entries(Metadata);

impl Entries {
    fn add(&mut self, name: &str, value: GgufValue) {
        self.0.push((format!("tokenizer.{name}"), value));
    }

    fn words(&mut self, words: Words, vocabulary: &Vocabulary) {
        let text = |text: &str| GgufValue::Text(text.to_owned());
        match words {
            Words::Bytes { name, .. } => {
                self.add("ggml.model", text("gpt2"));
                self.add("ggml.pre", text(name));
                let merges = vocabulary.merges.iter().map(|pair| pair.join(" ")).collect();
                self.add("ggml.merges", GgufValue::Texts(merges));
            }
            Words::Spaces {
                begins_with_space, ..
            } => {
                self.add("ggml.model", text("llama"));
                self.add("ggml.pre", text("default"));
                self.add("ggml.scores", GgufValue::F32s(vocabulary.scores()));
                self.add("ggml.add_space_prefix", GgufValue::Bool(begins_with_space));
            }
        }
    }

    fn tokens(&mut self, vocabulary: &Vocabulary) {
        let kinds = vocabulary.kinds.iter().map(|&kind| kind as i32).collect();
        self.add("ggml.tokens", GgufValue::Texts(vocabulary.tokens.clone()));
        self.add("ggml.token_type", GgufValue::I32s(kinds));
    }

    /// The tokens with a part of their own, and which of them a text begins and ends with.
    fn special_tokens(
        &mut self,
        json: &Value,
        (tokenizer, vocabulary): (&Tokenizer, &Vocabulary),
        config: &ModelConfig,
    ) -> Result<(), ExportError> {
        let [before, after] = added(json, vocabulary).map_err(unsupported)?;
        let ids = [
            ("bos", before.or(tokenizer.bos_id()).or(config.bos_token)),
            (
                "eos",
                after
                    .or(tokenizer.eos_id())
                    .or(config.eos_tokens.first().copied()),
            ),
            ("padding", config.pad_token),
            (
                "unknown",
                json["model"]["unk_token"]
                    .as_str()
                    .and_then(|token| vocabulary.id(token)),
            ),
        ];
        for (name, id) in ids {
            if let Some(id) = id.filter(|&id| (id as usize) < config.vocab_size) {
                self.add(&format!("ggml.{name}_token_id"), GgufValue::U32(id));
            }
        }
        self.add("ggml.add_bos_token", GgufValue::Bool(before.is_some()));
        self.add("ggml.add_eos_token", GgufValue::Bool(after.is_some()));
        Ok(())
    }
}

/// The tokens that the post-processor puts before and behind a text, one each at most.
fn added(json: &Value, vocabulary: &Vocabulary) -> Result<[Option<u32>; 2], String> {
    let post = &json["post_processor"];
    let steps = match post["type"].as_str() {
        Some("Sequence") => post["processors"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default(),
        _ => std::slice::from_ref(post),
    };
    let is_known = |step: &&Value| {
        let kind = step["type"].as_str();
        kind.is_none_or(|kind| ["ByteLevel", "TemplateProcessing"].contains(&kind))
    };
    if let Some(step) = steps.iter().find(|step| !is_known(step)) {
        return Err(format!("a tokenizer with the post_processor {}", step["type"]));
    }
    let Some(template) = steps.iter().find(|step| step["type"] == "TemplateProcessing") else {
        return Ok([None, None]);
    };
    let parts = template["single"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let token = |part: &Value| {
        let text = part["SpecialToken"]["id"].as_str().unwrap_or_default();
        let id = vocabulary.id(text);
        id.map(Some)
            .ok_or_else(|| format!("a tokenizer that adds `{text}`, which it does not have"))
    };
    let is_text = |part: &Value| part["Sequence"].is_object();
    match parts {
        [text] if is_text(text) => Ok([None, None]),
        [first, text] if is_text(text) => Ok([token(first)?, None]),
        [text, last] if is_text(text) => Ok([None, token(last)?]),
        [first, text, last] if is_text(text) => Ok([token(first)?, token(last)?]),
        _ => Err("a tokenizer that puts several tokens before or behind a text".into()),
    }
}

/// llama.cpp takes whole words with some names and with others it does not.
fn check_whole_words(json: &Value, words: Words) -> Result<(), ExportError> {
    let takes = json["model"]["ignore_merges"] == Value::Bool(true);
    match words {
        Words::Bytes {
            name,
            takes_whole_words,
        } if takes != takes_whole_words => Err(unsupported(format!(
            "a tokenizer with the words of {name} and `ignore_merges` {takes}"
        ))),
        _ => Ok(()),
    }
}

fn notices(json: &Value, words: Words) -> Vec<String> {
    let mut notices = Vec::new();
    let after_special_tokens = !matches!(
        words,
        Words::Spaces {
            after_special_tokens: false,
            ..
        }
    );
    if !after_special_tokens {
        notices.push(
            "llama.cpp puts a space behind special tokens inside a text, where this tokenizer puts none"
                .into(),
        );
    }
    if json["normalizer"]["type"] == "NFC" {
        notices.push("llama.cpp does not compose characters (Unicode's NFC) before it cuts a text into tokens, as this tokenizer does".into());
    }
    let added = json["added_tokens"].as_array().into_iter().flatten();
    let strips = |token: &&Value| {
        ["lstrip", "rstrip", "single_word"]
            .iter()
            .any(|name| token[name] == Value::Bool(true))
    };
    if let Some(token) = added.clone().find(strips) {
        notices.push(format!(
            "the token {} takes spaces beside it or stands alone as a word, which GGUF has no place for",
            token["content"]
        ));
    }
    notices
}

/// The text of the chat template that counts where no name is given.
fn chat_template(dir: &Path) -> Result<Option<String>, ExportError> {
    let path = dir.join("chat_template.jinja");
    if path.is_file() {
        let bytes = fs::read(&path).map_err(CheckpointError::io("read", &path))?;
        return Ok(Some(String::from_utf8_lossy(&bytes).into_owned()));
    }
    for name in ["tokenizer_config.json", "chat_template.json"] {
        let file = read_json(dir, name)?.unwrap_or_default();
        let template = match &file["chat_template"] {
            Value::Array(named) => named
                .iter()
                .find(|one| one["name"] == "default")
                .map(|one| &one["template"]),
            other => Some(other),
        };
        if let Some(text) = template.and_then(Value::as_str) {
            return Ok(Some(text.to_owned()));
        }
    }
    Ok(None)
}

fn unsupported(what: String) -> ExportError {
    ExportError::Unsupported {
        format: ExportFormat::Gguf,
        what,
        expected: "a BPE tokenizer as GPT-2, Llama 2 or 3, Qwen 2 or 3, or SmolLM have it".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tokens_around_a_text_are_those_of_the_post_processor() {
        let tokenizer = json!({"model": {"type": "BPE", "vocab": {"<s>": 0, "</s>": 1}}});
        let vocabulary = Vocabulary::new(&tokenizer, 2).unwrap();
        let special = |token: &str| json!({"SpecialToken": {"id": token, "type_id": 0}});
        let text = json!({"Sequence": {"id": "A", "type_id": 0}});
        let around = |parts: &[&Value]| {
            let template = json!({"type": "TemplateProcessing", "single": parts});
            let sequence = json!({"type": "Sequence", "processors": [{"type": "ByteLevel"}, template]});
            added(&json!({"post_processor": sequence}), &vocabulary)
        };
        let (begin, end) = (special("<s>"), special("</s>"));
        assert_eq!(around(&[&text]), Ok([None, None]));
        assert_eq!(around(&[&begin, &text]), Ok([Some(0), None]));
        assert_eq!(around(&[&begin, &text, &end]), Ok([Some(0), Some(1)]));
        assert!(around(&[&begin, &begin, &text]).is_err());
        assert_eq!(
            added(&json!({"post_processor": null}), &vocabulary),
            Ok([None, None])
        );
    }

    #[test]
    fn a_template_comes_from_its_file_or_from_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(chat_template(dir.path()).unwrap(), None);
        let named = r#"{"chat_template": [{"name": "tool_use", "template": "b"}, {"name": "default", "template": "a"}]}"#;
        fs::write(dir.path().join("tokenizer_config.json"), named).unwrap();
        assert_eq!(chat_template(dir.path()).unwrap().as_deref(), Some("a"));
        fs::write(dir.path().join("chat_template.jinja"), "c").unwrap();
        assert_eq!(chat_template(dir.path()).unwrap().as_deref(), Some("c"));
    }
}
