//! Conversations as Anthropic's interface writes them: calls and what tools answered are blocks of a message's content.

use serde_json::{Value, json};

use crate::answers::{Message, SaidCall};
use crate::error::ApiError;
use crate::parameters::{ANTHROPIC_MESSAGES, Fields, shown};
use crate::prompt::{MessageRules, name_answers, read_content, read_messages};

/// The blocks of a message that are no text.
#[derive(Default)]
struct Blocks {
    thoughts: Vec<String>,
    calls: Vec<SaidCall>,
    /// (id of the call, what the tool answered)
    answers: Vec<(String, String)>,
}

fn rules(ignore_unknown: bool) -> MessageRules {
    MessageRules {
        words: ANTHROPIC_MESSAGES,
        ignore_unknown,
    }
}

/// Takes `system` and `messages`, of which the last must be the user's.
///
/// # Errors
/// A message or a block that is none.
pub fn take_conversation(fields: &mut Fields, ignore_unknown: bool) -> Result<Vec<Message>, ApiError> {
    let rules = rules(ignore_unknown);
    let path = fields.name("messages");
    let mut list = fields.required("messages")?;
    let mut blocks = Vec::new();
    for (index, message) in list.as_array_mut().into_iter().flatten().enumerate() {
        blocks.push(take_blocks(&format!("{path}[{index}].content"), message, rules)?);
    }
    let messages = read_messages(&path, list, rules)?;
    if messages.last().is_some_and(|last| last.role == "assistant") {
        let problem = "the last message is the assistant's: going on with it is not supported";
        return Err(fields.error("messages", problem));
    }
    let mut turns = Vec::with_capacity(messages.len() + 1);
    if let Some(system) = fields.value("system") {
        turns.push(Message::new("system", read_content("system", system, rules)?));
    }
    for (message, blocks) in messages.into_iter().zip(blocks) {
        add_turns(message, blocks, &mut turns);
    }
    name_answers(&mut turns);
    Ok(turns)
}

/// What tools answered comes before what the user says of it.
fn add_turns(message: Message, blocks: Blocks, turns: &mut Vec<Message>) {
    let has_answers = !blocks.answers.is_empty();
    let answers = blocks.answers.into_iter();
    turns.extend(answers.map(|(id, answer)| Message::of_tool(id, answer)));
    if !has_answers || !message.content.is_empty() {
        turns.push(Message {
            reasoning_content: (!blocks.thoughts.is_empty()).then(|| blocks.thoughts.join("\n")),
            tool_calls: blocks.calls,
            ..message
        });
    }
}

/// Takes the blocks of a message's content that are no text; what is left is read as any message.
fn take_blocks(path: &str, message: &mut Value, rules: MessageRules) -> Result<Blocks, ApiError> {
    let mut blocks = Blocks::default();
    let role = message["role"].as_str().unwrap_or_default().to_owned();
    let Some(Value::Array(content)) = message.get_mut("content") else {
        return Ok(blocks);
    };
    let num_blocks = content.len();
    let mut texts = Vec::with_capacity(num_blocks);
    for (index, block) in std::mem::take(content).into_iter().enumerate() {
        let at = format!("{path}[{index}]");
        match (block["type"].as_str(), role.as_str()) {
            (Some("tool_use"), "assistant") => blocks.calls.push(read_call(&at, block, rules)?),
            (Some("tool_result"), "user") => blocks.answers.push(read_answer(&at, block, rules)?),
            (Some("thinking"), "assistant") => blocks.thoughts.extend(read_thoughts(&at, block)?),
            // What nobody can read no template can show.
            (Some("redacted_thinking"), "assistant") => {}
            _ => texts.push(block),
        }
    }
    let only_blocks = texts.is_empty() && num_blocks > 0;
    message["content"] = if only_blocks { json!("") } else { texts.into() };
    Ok(blocks)
}

fn read_thoughts(path: &str, block: Value) -> Result<Option<String>, ApiError> {
    let thoughts = Fields::of(path, block)?.text("thinking")?;
    Ok(thoughts.filter(|thoughts| !thoughts.is_empty()))
}

fn read_call(path: &str, block: Value, rules: MessageRules) -> Result<SaidCall, ApiError> {
    let mut fields = Fields::of(path, block)?;
    let missing = fields.error("name", "missing: this field is required");
    let name = fields.text("name")?.ok_or(missing)?;
    let id = fields.text("id")?.unwrap_or_default();
    let arguments = fields.value("input").unwrap_or_else(|| json!({}));
    if !arguments.is_object() {
        return Err(fields.error("input", format!("expected an object, got {}", shown(&arguments))));
    }
    fields.pass_over(&["type", "cache_control", "caller"]);
    fields.finish(
        &["type", "id", "name", "input", "cache_control"],
        rules.ignore_unknown,
    )?;
    Ok(SaidCall { id, name, arguments })
}

fn read_answer(path: &str, block: Value, rules: MessageRules) -> Result<(String, String), ApiError> {
    let mut fields = Fields::of(path, block)?;
    let missing = fields.error("tool_use_id", "missing: this field is required");
    let id = fields.text("tool_use_id")?.ok_or(missing)?;
    let content = fields.value("content").unwrap_or_else(|| json!(""));
    let mut answer = read_content(&fields.name("content"), content, rules)?;
    if fields.flag("is_error")? {
        answer = format!("Error: {answer}");
    }
    fields.pass_over(&["type", "cache_control"]);
    let known = ["type", "tool_use_id", "content", "is_error", "cache_control"];
    fields.finish(&known, rules.ignore_unknown)?;
    Ok((id, answer))
}
