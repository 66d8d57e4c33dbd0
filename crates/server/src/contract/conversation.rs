//! Schemas of conversations.

use serde_json::{Map, Value, json};

use super::endpoint::{About, or_null, text};
use crate::parameters::ranges::MAX_MESSAGES;

/// `messages` of OpenAI's interface.
pub fn chat_messages(about: &About) -> Value {
    let roles = ["system", "developer", "user", "assistant"];
    messages(&roles, content(&["text"], about), &["name"], about)
}

/// `messages` of Anthropic's.
pub fn anthropic_messages(about: &About) -> Value {
    messages(
        &["user", "assistant"],
        parts(&["text"], &["cache_control"], about),
        &[],
        about,
    )
}

/// `input` of OpenAI's newer interface: a text, or a list of messages.
pub fn input(about: &About) -> Value {
    let roles = ["system", "developer", "user", "assistant"];
    let content = parts(
        &["input_text", "output_text"],
        &["annotations", "logprobs"],
        about,
    );
    json!({"anyOf": [text(), messages(&roles, content, &["id", "status"], about)]})
}

/// A text, or a list of parts of text.
pub fn content(types: &[&str], about: &About) -> Value {
    parts(types, &["cache_control"], about)
}

fn messages(roles: &[&str], content: Value, ignored: &[&str], about: &About) -> Value {
    let mut fields = Map::new();
    fields.insert("role".into(), json!({"type": "string", "enum": roles}));
    fields.insert("content".into(), content);
    fields.insert("type".into(), or_null(json!({"const": "message"})));
    ignored
        .iter()
        .for_each(|name| _ = fields.insert((*name).into(), json!({})));
    let message = json!({
        "type": "object", "properties": fields, "required": ["role", "content"],
        "additionalProperties": about.unknown_fields()
    });
    json!({"type": "array", "items": message, "minItems": 1, "maxItems": MAX_MESSAGES})
}

fn parts(types: &[&str], ignored: &[&str], about: &About) -> Value {
    let mut fields = Map::new();
    fields.insert("type".into(), json!({"type": "string", "enum": types}));
    fields.insert("text".into(), text());
    ignored
        .iter()
        .for_each(|name| _ = fields.insert((*name).into(), json!({})));
    let part = json!({
        "type": "object", "properties": fields, "required": ["type", "text"],
        "additionalProperties": about.unknown_fields()
    });
    json!({"anyOf": [text(), {"type": "array", "items": part}]})
}
