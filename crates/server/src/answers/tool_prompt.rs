//! How a model is told of its tools where its chat template has no place for them.

use serde_json::json;

use super::said::Message;
use super::split::{CALL, CALL_END};
use super::tool::{Choice, Tools};

/// The conversation in turns of text alone: tools and how to call them go into the system's first message, calls into the assistant's
/// texts, and what tools answered into messages of the user.
pub fn in_text(messages: &[Message], tools: &Tools) -> Vec<Message> {
    let mut turns: Vec<Message> = messages.iter().map(as_text).collect();
    if let Some(told) = description(tools) {
        match turns.first_mut().filter(|first| first.role == "system") {
            Some(system) => system.content = format!("{}\n\n{told}", system.content),
            None => turns.insert(0, Message::new("system", told)),
        }
    }
    turns
}

/// What the system says of tools; nothing where none can be called.
fn description(tools: &Tools) -> Option<String> {
    let lines: Vec<String> = tools
        .callable()
        .map(|tool| tool.described().to_string())
        .collect();
    if lines.is_empty() {
        return None;
    }
    let when = match tools.choice {
        Choice::Required | Choice::Named(_) => "Answer with a call of a tool.",
        _ => "You may call tools where they help.",
    };
    let how_many = match tools.parallel {
        true => "Several calls may follow each other.",
        false => "Make at most one call.",
    };
    Some(format!(
        "{when} These are the tools, each with the JSON Schema of its arguments:\n{}\nA call is a JSON object between two marks: \
         {CALL}{{\"name\": \"...\", \"arguments\": {{...}}}}{CALL_END}. {how_many}",
        lines.join("\n")
    ))
}

fn as_text(message: &Message) -> Message {
    if message.role == "tool" {
        let name = message
            .name
            .as_ref()
            .map_or_else(String::new, |name| format!(" {name}"));
        return Message::new("user", format!("Answer of the tool{name}:\n{}", message.content));
    }
    let mut content = message.content.clone();
    for call in &message.tool_calls {
        let call = json!({"name": call.name, "arguments": call.arguments});
        if !content.is_empty() {
            content.push('\n');
        }
        content += &format!("{CALL}{call}{CALL_END}");
    }
    Message {
        reasoning_content: message.reasoning_content.clone(),
        ..Message::new(message.role.clone(), content)
    }
}
