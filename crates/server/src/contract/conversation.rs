//! Schemas of conversations.

use serde_json::{Map, Value, json};

use super::endpoint::{About, or_null, text};
use crate::parameters::ranges::MAX_MESSAGES;
use crate::parameters::{ANTHROPIC_MESSAGES, CHAT_MESSAGES, INPUT_MESSAGES, MessageWords};

/// `messages` of OpenAI's interface.
pub fn chat_messages(about: &About) -> Value {
    let words = &CHAT_MESSAGES;
    let content = || content(words, about);
    let message = |roles: &[&str]| message(roles, content(), words.message_fields, about);
    let calls = |least: usize| json!({"type": "array", "items": call(about), "minItems": least, "maxItems": MAX_MESSAGES});
    let mut said = message(&["assistant"]);
    said["properties"]["tool_calls"] = or_null(calls(0));
    said["properties"]["reasoning_content"] = or_null(text());
    // Who calls need not say anything.
    let mut called = message(&["assistant"]);
    called["properties"]["tool_calls"] = calls(1);
    called["properties"]["reasoning_content"] = or_null(text());
    called["properties"]["content"] = or_null(content());
    called["required"] = json!(["role", "tool_calls"]);
    let mut answered = message(&["tool"]);
    answered["properties"]["tool_call_id"] = or_null(text());
    list_of(&[message(&["system", "developer", "user"]), said, called, answered])
}

/// `messages` of Anthropic's.
pub fn anthropic_messages(about: &About) -> Value {
    let words = &ANTHROPIC_MESSAGES;
    let of_text = part(words, about);
    let answer = json!({
        "type": {"const": "tool_result"}, "tool_use_id": text(), "content": or_null(content(words, about)),
        "is_error": {"type": ["boolean", "null"]}, "cache_control": {}
    });
    let call = json!({
        "type": {"const": "tool_use"}, "id": or_null(text()), "name": text(), "input": {"type": ["object", "null"]},
        "cache_control": {}, "caller": {}
    });
    let of_user = [of_text.clone(), closed(answer, &["type", "tool_use_id"], about)];
    let of_assistant = [
        of_text,
        closed(call, &["type", "name"], about),
        open(&["thinking", "redacted_thinking"]),
    ];
    list_of(&[
        message(&["user"], text_or(&of_user), &[], about),
        message(&["assistant"], text_or(&of_assistant), &[], about),
    ])
}

/// `input` of OpenAI's newer interface: a text, or a list of messages, calls and what tools answered.
pub fn input(about: &About) -> Value {
    let words = &INPUT_MESSAGES;
    let content = content(words, about);
    let call = json!({
        "type": {"const": "function_call"}, "id": {}, "status": {}, "call_id": or_null(text()), "name": text(), "arguments": arguments()
    });
    let answer = json!({
        "type": {"const": "function_call_output"}, "id": {}, "status": {}, "call_id": text(), "output": content
    });
    let items = list_of(&[
        message(words.roles, content.clone(), words.message_fields, about),
        closed(call, &["type", "name"], about),
        closed(answer, &["type", "call_id", "output"], about),
        open(&["reasoning"]),
    ]);
    json!({"anyOf": [text(), items]})
}

/// A text, or a list of parts of text.
pub fn content(words: &MessageWords, about: &About) -> Value {
    text_or(&[part(words, about)])
}

/// An object of these fields and no others.
pub fn closed(properties: Value, required: &[&str], about: &About) -> Value {
    json!({
        "type": "object", "properties": properties, "required": required,
        "additionalProperties": about.unknown_fields()
    })
}

fn list_of(messages: &[Value]) -> Value {
    json!({"type": "array", "items": {"anyOf": messages}, "minItems": 1, "maxItems": MAX_MESSAGES})
}

fn message(roles: &[&str], content: Value, ignored: &[&str], about: &About) -> Value {
    let mut fields = Map::new();
    fields.insert("role".into(), json!({"type": "string", "enum": roles}));
    fields.insert("content".into(), content);
    fields.insert("type".into(), or_null(json!({"const": "message"})));
    add_ignored(&mut fields, ignored);
    closed(fields.into(), &["role", "content"], about)
}

/// A call that an assistant has made.
fn call(about: &About) -> Value {
    let function = closed(
        json!({"name": text(), "arguments": arguments()}),
        &["name"],
        about,
    );
    let fields = json!({"id": or_null(text()), "type": {}, "index": {}, "function": function});
    closed(fields, &["function"], about)
}

/// An object, or the text of one.
fn arguments() -> Value {
    json!({"type": ["object", "string", "null"]})
}

/// An object of one of these types that nobody looks into.
fn open(types: &[&str]) -> Value {
    json!({"type": "object", "properties": {"type": {"type": "string", "enum": types}}, "required": ["type"]})
}

fn text_or(parts: &[Value]) -> Value {
    json!({"anyOf": [text(), {"type": "array", "items": {"anyOf": parts}}]})
}

fn part(words: &MessageWords, about: &About) -> Value {
    let mut fields = Map::new();
    fields.insert("type".into(), json!({"type": "string", "enum": words.part_types}));
    fields.insert("text".into(), text());
    add_ignored(&mut fields, words.part_fields);
    closed(fields.into(), &["type", "text"], about)
}

fn add_ignored(fields: &mut Map<String, Value>, ignored: &[&str]) {
    for name in ignored {
        fields.insert((*name).into(), json!({}));
    }
}
