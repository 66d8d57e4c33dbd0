//! The schema of every parameter that does something. Ranges are those that requests are checked against.

use std::ops::RangeInclusive;

use serde_json::{Value, json};

use super::conversation::{anthropic_messages, chat_messages, content, input};
use super::endpoint::{About, list, text, whole};
use super::forms::form_shape;
use crate::parameters::ranges::{
    BIAS, CHOICES, LOGPROBS, MAX_BIASES, MAX_NOTE_CHARS, MAX_NOTE_NAME_CHARS, MAX_NOTES, MAX_STOP_BYTES,
    MAX_STOPS, MAX_TOKENS, MIN_P, PENALTY, PRIORITY, REPETITION_PENALTY, SEED, TEMPERATURE, TOP_K, TOP_P,
};
use crate::parameters::{ANTHROPIC_MESSAGES, Api, unasked_sampling};

/// The schema of a parameter; `None` of one that has none yet, which a test does not let pass.
pub fn shape(api: Api, name: &str, about: &About) -> Option<Value> {
    let common = sampling_shape(name, about).or_else(|| form_shape(api, name, about));
    common.or_else(|| {
        Some(match (api, name) {
            (_, "model") => json!({"type": "string", "enum": [about.alias]}),
            (Api::Chat, "messages") => chat_messages(about),
            (Api::Messages, "messages") => anthropic_messages(about),
            (_, "input") => input(about),
            (_, "system") => content(&ANTHROPIC_MESSAGES, about),
            (_, "instructions") => text(),
            (Api::Responses, "metadata") => metadata(),
            (Api::Completions, "prompt") => prompts(about),
            (_, "stream" | "ignore_eos") => json!({"type": "boolean"}),
            (_, "stream_options") => stream_options(about),
            (_, "n") => whole(CHOICES),
            (_, "priority") => whole(PRIORITY),
            (Api::Chat, "logprobs") => json!({"type": "boolean"}),
            (Api::Completions, "logprobs") | (_, "top_logprobs") => whole(LOGPROBS),
            _ => return None,
        })
    })
}

fn sampling_shape(name: &str, about: &About) -> Option<Value> {
    let usual = unasked_sampling(about.bounds.defaults);
    Some(match name {
        "max_tokens" | "max_completion_tokens" | "max_output_tokens" => whole(MAX_TOKENS),
        "temperature" => by_default(number(TEMPERATURE), usual.temperature),
        "top_p" => by_default(number(TOP_P), usual.top_p),
        "top_k" => by_default(whole(TOP_K), usual.top_k),
        "min_p" => by_default(number(MIN_P), usual.min_p),
        "frequency_penalty" | "presence_penalty" => number(PENALTY),
        "repetition_penalty" => by_default(number(REPETITION_PENALTY), usual.repetition_penalty),
        "logit_bias" => logit_bias(about),
        "seed" => seed(),
        "stop" => json!({"anyOf": [end_text(), end_texts()]}),
        "stop_sequences" => json!({"anyOf": [end_text(), end_texts()]}),
        _ => return None,
    })
}

/// A schema that says what counts where nothing is given.
fn by_default(mut schema: Value, default: impl ToString) -> Value {
    // A float of 32 bits is told as it was written.
    schema["default"] = serde_json::from_str(&default.to_string()).unwrap_or_default();
    schema
}

/// A number of a range.
fn number(range: RangeInclusive<f64>) -> Value {
    json!({"type": "number", "minimum": range.start(), "maximum": range.end()})
}

/// JSON has no numbers of 128 bits, but both ends have 64.
fn seed() -> Value {
    json!({"type": "integer", "minimum": *SEED.start() as i64, "maximum": *SEED.end() as u64})
}

fn end_text() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": MAX_STOP_BYTES, "description": "lengths count bytes of UTF-8"})
}

fn end_texts() -> Value {
    json!({"type": "array", "items": end_text(), "maxItems": MAX_STOPS})
}

/// An id below the size of the vocabulary.
pub fn token_id(about: &About) -> Value {
    json!({"type": "integer", "minimum": 0, "maximum": about.bounds.vocab_size.saturating_sub(1)})
}

fn logit_bias(about: &About) -> Value {
    json!({
        "type": "object", "maxProperties": MAX_BIASES,
        "propertyNames": {"pattern": "^[0-9]+$", "description": format!("a token id below {}", about.bounds.vocab_size)},
        "additionalProperties": number(BIAS)
    })
}

/// A text, token ids, or a list of either.
fn prompts(about: &About) -> Value {
    let ids = json!({"type": "array", "items": token_id(about), "minItems": 1});
    json!({"anyOf": [text(), ids.clone(), {"type": "array", "minItems": 1, "items": {"anyOf": [text(), ids]}}]})
}

fn stream_options(about: &About) -> Value {
    let flag = json!({"type": ["boolean", "null"]});
    let fields = json!({"include_usage": flag, "include_obfuscation": flag});
    json!({"type": "object", "properties": fields, "additionalProperties": about.unknown_fields()})
}

fn metadata() -> Value {
    let note = json!({"type": "string", "maxLength": MAX_NOTE_CHARS});
    json!({
        "type": "object", "maxProperties": MAX_NOTES, "propertyNames": {"maxLength": MAX_NOTE_NAME_CHARS},
        "additionalProperties": note
    })
}

impl About {
    /// What fields may be that no table knows: null counts as absent.
    pub fn unknown_fields(&self) -> Value {
        match self.ignore_unknown {
            true => json!(true),
            false => json!({"type": "null"}),
        }
    }

    /// Token ids.
    pub fn token_ids(&self) -> Value {
        list(token_id(self))
    }
}
