//! What an endpoint takes and gives, as far as a stranger has to know it.

use std::ops::RangeInclusive;

use serde_json::{Value, json};

use crate::parameters::Bounds;

/// The model, as far as schemas depend on it.
#[derive(Debug, Clone)]
pub struct About {
    /// The name that requests may call it by.
    pub alias: String,
    /// What it allows.
    pub bounds: Bounds,
    /// Whether unknown fields are passed over.
    pub ignore_unknown: bool,
}

/// The methods there are.
#[derive(Debug, Clone, Copy)]
pub enum Verb {
    /// It asks for something and changes nothing.
    Get,
    /// It has a JSON body.
    Post(fn(&About) -> Value),
    /// It asks for something to be done and needs no body.
    Call,
    /// It asks for something to end.
    Delete,
}

/// The shape of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errors {
    /// OpenAI's.
    OpenAi,
    /// Anthropic's.
    Anthropic,
}

/// What an endpoint answers with status 200.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// JSON of this schema.
    Json(fn() -> Value),
    /// JSON of this schema, or server-sent events where the request asks for a stream.
    JsonOrEvents(fn() -> Value),
    /// Text of this type.
    Text(&'static str),
    /// JSON of this schema, also with status 503.
    Health(fn() -> Value),
}

/// What is told of an endpoint, in the manual and in /openapi.json.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint {
    /// Its path; `{*name}` and `{name}` stand for a name, the first one with slashes.
    pub path: &'static str,
    /// Its method, with the schema of its body.
    pub verb: Verb,
    /// Whether a key is asked for where there are keys.
    pub guarded: bool,
    /// The shape of its errors.
    pub errors: Errors,
    /// What it answers.
    pub answer: Answer,
    /// What it does.
    pub what: &'static str,
}

impl Endpoint {
    /// Its method's name.
    pub fn method(&self) -> &'static str {
        match self.verb {
            Verb::Get => "GET",
            Verb::Post(_) | Verb::Call => "POST",
            Verb::Delete => "DELETE",
        }
    }
}

/// An object of fields that must all be there; others may be there too.
pub fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let required: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let properties: serde_json::Map<_, _> = fields
        .iter()
        .map(|(name, schema)| ((*name).to_owned(), schema.clone()))
        .collect();
    json!({"type": "object", "properties": properties, "required": required})
}

/// Of this schema, or null.
pub fn or_null(schema: Value) -> Value {
    json!({"anyOf": [schema, {"type": "null"}]})
}

/// A list of these.
pub fn list(schema: Value) -> Value {
    json!({"type": "array", "items": schema})
}

/// Any text.
pub fn text() -> Value {
    json!({"type": "string"})
}

/// A whole number of a range.
pub fn whole(range: RangeInclusive<i64>) -> Value {
    json!({"type": "integer", "minimum": range.start(), "maximum": range.end()})
}

/// A count.
pub fn count() -> Value {
    json!({"type": "integer", "minimum": 0})
}
