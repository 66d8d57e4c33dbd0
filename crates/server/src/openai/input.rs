//! The input of /v1/responses: a text, or a list of messages, calls and what tools answered.

use serde_json::Value;

use crate::answers::{Message, SaidCall};
use crate::error::ApiError;
use crate::parameters::{Fields, INPUT_MESSAGES};
use crate::prompt::{MessageRules, message_list, name_answers, read_arguments, read_content, read_message};

fn rules(ignore_unknown: bool) -> MessageRules {
    MessageRules {
        words: INPUT_MESSAGES,
        ignore_unknown,
    }
}

/// Takes `input`.
///
/// # Errors
/// An item that is none.
pub fn take_input(fields: &mut Fields, ignore_unknown: bool) -> Result<Vec<Message>, ApiError> {
    let path = fields.name("input");
    let list = match fields.required("input")? {
        Value::String(content) => return Ok(vec![Message::new("user", content)]),
        list => message_list(&path, list)?,
    };
    let mut messages = Vec::with_capacity(list.len());
    for (index, item) in list.into_iter().enumerate() {
        add_item(
            &format!("{path}[{index}]"),
            item,
            &mut messages,
            rules(ignore_unknown),
        )?;
    }
    messages.retain(|message| !is_thought(message));
    if messages.is_empty() {
        return Err(ApiError::field(path, "expected at least one message"));
    }
    name_answers(&mut messages);
    Ok(messages)
}

fn add_item(
    path: &str,
    item: Value,
    messages: &mut Vec<Message>,
    rules: MessageRules,
) -> Result<(), ApiError> {
    match item["type"].as_str() {
        Some("function_call") => {
            let call = read_call(path, item, rules)?;
            match messages.last_mut().filter(|last| last.role == "assistant") {
                Some(said) => said.tool_calls.push(call),
                None => messages.push(Message {
                    tool_calls: vec![call],
                    ..Message::new("assistant", "")
                }),
            }
        }
        Some("function_call_output") => messages.push(read_answer(path, item, rules)?),
        Some("reasoning") => add_thoughts(&item, messages),
        _ => add_message(read_message(path, item, rules)?, messages),
    }
    Ok(())
}

/// What was thought belongs to what is said after it.
fn add_message(message: Message, messages: &mut Vec<Message>) {
    match messages.last_mut().filter(|last| is_thought(last)) {
        Some(last) if message.role == "assistant" => last.content = message.content,
        _ => messages.push(message),
    }
}

fn is_thought(message: &Message) -> bool {
    message.reasoning_content.is_some() && message.content.is_empty() && message.tool_calls.is_empty()
}

/// Adds the thoughts of an item, as a turn of which nothing else has come or to the one before that is such.
fn add_thoughts(item: &Value, messages: &mut Vec<Message>) {
    let parts = item["content"].as_array().into_iter().flatten();
    let texts: Vec<&str> = parts.filter_map(|part| part["text"].as_str()).collect();
    let before = messages.pop_if(|last| is_thought(last));
    let before = before.and_then(|message| message.reasoning_content);
    let thoughts: Vec<&str> = before.as_deref().into_iter().chain(texts).collect();
    if !thoughts.is_empty() {
        messages.push(Message {
            reasoning_content: Some(thoughts.join("\n")),
            ..Message::new("assistant", "")
        });
    }
}

fn read_call(path: &str, item: Value, rules: MessageRules) -> Result<SaidCall, ApiError> {
    let mut fields = Fields::of(path, item)?;
    let missing = fields.error("name", "missing: this field is required");
    let name = fields.text("name")?.ok_or(missing)?;
    let arguments = read_arguments(&mut fields)?;
    let id = fields.text("call_id")?.unwrap_or_default();
    fields.pass_over(&["type", "id", "status"]);
    let known = ["type", "id", "status", "call_id", "name", "arguments"];
    fields.finish(&known, rules.ignore_unknown)?;
    Ok(SaidCall { id, name, arguments })
}

fn read_answer(path: &str, item: Value, rules: MessageRules) -> Result<Message, ApiError> {
    let mut fields = Fields::of(path, item)?;
    let missing = fields.error("call_id", "missing: this field is required");
    let id = fields.text("call_id")?.ok_or(missing)?;
    let output = fields.required("output")?;
    let output = read_content(&fields.name("output"), output, rules)?;
    fields.pass_over(&["type", "id", "status"]);
    fields.finish(
        &["type", "id", "status", "call_id", "output"],
        rules.ignore_unknown,
    )?;
    Ok(Message::of_tool(id, output))
}
