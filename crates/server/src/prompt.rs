//! From what a request says to the tokens of its prompt.

use dualgrain::engine::chat::Message;
use serde_json::Value;

use crate::app::App;
use crate::error::ApiError;
use crate::parameters::{Fields, shown, token_ids};

/// Turns of a conversation.
const MAX_MESSAGES: usize = 1024;
/// No vocabulary has many tokens longer than this: a longer text can not fit, and need not be cut into tokens to know it.
const MAX_TOKEN_BYTES: usize = 256;

/// A prompt as it was sent.
pub enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

/// How a list of messages is read.
#[derive(Clone, Copy)]
pub struct MessageRules {
    /// Roles that are taken.
    pub roles: &'static [&'static str],
    /// Fields of a message that change nothing.
    pub message_fields: &'static [&'static str],
    /// Types of a part of text.
    pub part_types: &'static [&'static str],
    /// Fields of a part of text that change nothing.
    pub part_fields: &'static [&'static str],
    /// Pass over unknown fields.
    pub ignore_unknown: bool,
}

/// Takes the conversation in `messages`.
pub fn take_messages(fields: &mut Fields, rules: MessageRules) -> Result<Vec<Message>, ApiError> {
    let list = fields.required("messages")?;
    read_messages(&fields.name("messages"), list, rules)
}

/// Reads a list of messages, which stands at `path`.
pub fn read_messages(path: &str, list: Value, rules: MessageRules) -> Result<Vec<Message>, ApiError> {
    let list = match list {
        Value::Array(list) if (1..=MAX_MESSAGES).contains(&list.len()) => list,
        other => {
            let problem = format!(
                "expected a list of 1 to {MAX_MESSAGES} messages, got {}",
                shown(&other)
            );
            return Err(ApiError::field(path, problem));
        }
    };
    let read = |(index, message)| read_message(&format!("{path}[{index}]"), message, rules);
    list.into_iter().enumerate().map(read).collect()
}

fn read_message(path: &str, message: Value, rules: MessageRules) -> Result<Message, ApiError> {
    let mut fields = Fields::of(path, message)?;
    let role = match fields.required("role")? {
        Value::String(role) if rules.roles.contains(&role.as_str()) => role,
        other => {
            let problem = format!(
                "expected one of {}, got {}",
                rules.roles.join(", "),
                shown(&other)
            );
            return Err(fields.error("role", problem));
        }
    };
    let content = fields.required("content")?;
    let content = read_content(&fields.name("content"), content, rules)?;
    check_type(&mut fields)?;
    rules
        .message_fields
        .iter()
        .for_each(|name| _ = fields.value(name));
    fields.finish(&["role", "content"], rules.ignore_unknown)?;
    // Templates know the older name of that role.
    let role = if role == "developer" {
        "system".to_owned()
    } else {
        role
    };
    Ok(Message { role, content })
}

/// A message may say that it is one.
fn check_type(fields: &mut Fields) -> Result<(), ApiError> {
    match fields.value("type") {
        Some(kind) if kind != "message" => {
            let problem = format!("only \"message\" is taken, got {}", shown(&kind));
            Err(fields.error("type", problem))
        }
        _ => Ok(()),
    }
}

/// A text, or a list of parts of text, which are joined by line breaks.
pub fn read_content(path: &str, content: Value, rules: MessageRules) -> Result<String, ApiError> {
    let parts = match content {
        Value::String(text) => return Ok(text),
        Value::Array(parts) => parts,
        other => {
            let problem = format!("expected a text or a list of parts, got {}", shown(&other));
            return Err(ApiError::field(path, problem));
        }
    };
    let read = |(index, part)| read_part(&format!("{path}[{index}]"), part, rules);
    let texts: Result<Vec<String>, ApiError> = parts.into_iter().enumerate().map(read).collect();
    Ok(texts?.join("\n"))
}

fn read_part(path: &str, part: Value, rules: MessageRules) -> Result<String, ApiError> {
    let mut fields = Fields::of(path, part)?;
    let kind = fields.required("type")?;
    if !kind.as_str().is_some_and(|kind| rules.part_types.contains(&kind)) {
        let types = rules.part_types.join("\" or \"");
        let problem = format!("only parts of type \"{types}\" are taken, got {}", shown(&kind));
        return Err(fields.error("type", problem));
    }
    let missing = fields.error("text", "missing: this field is required");
    let text = fields.text("text")?.ok_or(missing)?;
    rules.part_fields.iter().for_each(|name| _ = fields.value(name));
    fields.finish(&["type", "text"], rules.ignore_unknown)?;
    Ok(text)
}

/// Takes `prompt`: a text, token ids, or a list of either.
pub fn take_prompts(fields: &mut Fields, vocab_size: usize) -> Result<Vec<Prompt>, ApiError> {
    let value = fields.required("prompt")?;
    let prompts = match &value {
        Value::String(_) => read_prompt(&value, vocab_size).map(|prompt| vec![prompt]),
        Value::Array(list) if list.first().is_some_and(Value::is_number) => {
            token_ids(list, vocab_size).map(|ids| vec![Prompt::Tokens(ids)])
        }
        Value::Array(list) if !list.is_empty() => list
            .iter()
            .map(|prompt| read_prompt(prompt, vocab_size))
            .collect(),
        _ => None,
    };
    prompts.ok_or_else(|| {
        let problem = format!(
            "expected a text, a list of token ids below {vocab_size}, or a list of either, got {}",
            shown(&value)
        );
        fields.error("prompt", problem)
    })
}

fn read_prompt(value: &Value, vocab_size: usize) -> Option<Prompt> {
    match value {
        Value::String(text) => Some(Prompt::Text(text.clone())),
        Value::Array(list) => token_ids(list, vocab_size).map(Prompt::Tokens),
        _ => None,
    }
}

impl App {
    /// The prompt text of a conversation, which ends where the answer begins if `answer_follows`.
    pub fn render(&self, messages: &[Message], answer_follows: bool) -> Result<String, ApiError> {
        let missing = || {
            ApiError::bad("this model has no chat template: use /v1/completions")
                .with_code("no_chat_template")
        };
        let template = self.model.template.as_ref().ok_or_else(missing)?;
        let text = template.render(&messages, answer_follows);
        text.map_err(|error| ApiError::field("messages", error.to_string()))
    }

    /// The tokens of a conversation.
    pub fn chat_tokens(&self, messages: &[Message]) -> Result<Vec<u32>, ApiError> {
        // The template writes special tokens itself.
        self.encode(&self.render(messages, true)?, false)
    }

    /// The tokens of a prompt.
    pub fn prompt_tokens(&self, prompt: Prompt) -> Result<Vec<u32>, ApiError> {
        match prompt {
            Prompt::Tokens(tokens) => Ok(tokens),
            Prompt::Text(text) => self.encode(&text, true),
        }
    }

    /// The tokens of a text that can fit the context.
    pub fn encode(&self, text: &str, special_tokens: bool) -> Result<Vec<u32>, ApiError> {
        let context_tokens = self.model.bounds.context_tokens;
        if text.len() > context_tokens.saturating_mul(MAX_TOKEN_BYTES) {
            let message = format!(
                "a text of {} bytes can not fit the context of {context_tokens} tokens",
                text.len()
            );
            return Err(ApiError::bad(message).with_code("context_length_exceeded"));
        }
        let tokens = self.model.tokenizer.encode(text, special_tokens);
        tokens.map_err(|error| ApiError::bad(error.to_string()))
    }
}
