//! Schemas of answers. Fields beyond these may come with a later version.

use serde_json::{Value, json};

use super::endpoint::{count, list, object, or_null, text};

/// Of /v1/chat/completions.
pub fn chat() -> Value {
    let message = object([
        ("role", json!({"const": "assistant"})),
        ("content", or_null(text())),
    ]);
    let choice = object([
        ("index", count()),
        ("message", message),
        ("finish_reason", text()),
        ("logprobs", json!({"type": ["object", "null"]})),
    ]);
    completion("chat.completion", choice)
}

/// Of /v1/completions.
pub fn completions() -> Value {
    let choice = object([
        ("index", count()),
        ("text", text()),
        ("finish_reason", text()),
        ("logprobs", json!({"type": ["object", "null"]})),
    ]);
    completion("text_completion", choice)
}

fn completion(object_name: &str, choice: Value) -> Value {
    let details = object([("cached_tokens", count())]);
    let usage = object([
        ("prompt_tokens", count()),
        ("completion_tokens", count()),
        ("total_tokens", count()),
        ("prompt_tokens_details", details),
    ]);
    object([
        ("id", text()),
        ("object", json!({"const": object_name})),
        ("created", count()),
        ("model", text()),
        ("choices", list(choice)),
        ("usage", usage),
    ])
}

/// Of /v1/responses.
pub fn responses() -> Value {
    let item = object([("id", text()), ("type", text())]);
    let usage = object([
        ("input_tokens", count()),
        ("output_tokens", count()),
        ("total_tokens", count()),
    ]);
    object([
        ("id", text()),
        ("object", json!({"const": "response"})),
        ("created_at", count()),
        ("completed_at", or_null(count())),
        ("status", json!({"enum": ["completed", "incomplete"]})),
        ("model", text()),
        ("output", list(item)),
        ("usage", usage),
        ("metadata", json!({"type": "object"})),
    ])
}

/// Of an answer that was ended and is forgotten.
pub fn deleted() -> Value {
    object([
        ("id", text()),
        ("object", text()),
        ("deleted", json!({"const": true})),
    ])
}

/// Of a response that was ended.
pub fn cancelled() -> Value {
    object([
        ("id", text()),
        ("object", json!({"const": "response"})),
        ("status", json!({"const": "cancelled"})),
    ])
}

/// Of /v1/messages.
pub fn messages() -> Value {
    let block = object([("type", text())]);
    let usage = object([("input_tokens", count()), ("output_tokens", count())]);
    object([
        ("id", text()),
        ("type", json!({"const": "message"})),
        ("role", json!({"const": "assistant"})),
        ("model", text()),
        ("content", list(block)),
        ("stop_reason", text()),
        ("stop_sequence", or_null(text())),
        ("usage", usage),
    ])
}

/// Of /v1/messages/count_tokens.
pub fn count_tokens() -> Value {
    object([("input_tokens", count())])
}

/// Of /v1/models.
pub fn models() -> Value {
    object([("object", json!({"const": "list"})), ("data", list(model()))])
}

/// Of /v1/models/NAME.
pub fn model() -> Value {
    object([
        ("id", text()),
        ("object", json!({"const": "model"})),
        ("created", count()),
        ("owned_by", text()),
        ("max_model_len", count()),
        ("machine", json!({"type": "object"})),
        ("energy", text()),
    ])
}

/// Of /tokenize.
pub fn tokenize() -> Value {
    object([
        ("tokens", list(count())),
        ("count", count()),
        ("max_model_len", count()),
    ])
}

/// Of /detokenize and /apply-template.
pub fn prompt() -> Value {
    object([("prompt", text())])
}

/// Of /health and /ready.
pub fn health() -> Value {
    object([("status", json!({"enum": ["ok", "unavailable"]}))])
}

/// An OpenAPI document.
pub fn document() -> Value {
    object([
        ("openapi", text()),
        ("info", json!({"type": "object"})),
        ("paths", json!({"type": "object"})),
    ])
}

/// Errors of OpenAI's interface, and of all paths that belong to none.
pub fn openai_error() -> Value {
    let error = object([
        ("message", text()),
        ("type", text()),
        ("param", or_null(text())),
        ("code", or_null(text())),
    ]);
    object([("error", error)])
}

/// Errors of Anthropic's.
pub fn anthropic_error() -> Value {
    let error = object([("type", text()), ("message", text())]);
    object([("type", json!({"const": "error"})), ("error", error)])
}
