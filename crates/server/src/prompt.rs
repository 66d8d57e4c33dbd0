//! From what a request says to the tokens of its prompt.

use dualgrain::engine::SharedConstraint;
use dualgrain::engine::chat::ChatTemplate;
use serde_json::Value;

use crate::answers::{Message, Rules, SaidCall, Splitter, Style, Thinking};
use crate::app::App;
use crate::error::ApiError;
use crate::parameters::ranges::MAX_MESSAGES;
use crate::parameters::{Fields, MessageWords, shown, token_ids};

/// No vocabulary has many tokens longer than this: a longer text can not fit, and need not be cut into tokens to know it.
const MAX_TOKEN_BYTES: usize = 256;

/// A prompt as it was sent.
pub enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

/// What a conversation asks of the engine.
pub struct ChatPrompt {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// What the answer must look like.
    pub constraint: Option<SharedConstraint>,
    /// Divides the answer's text.
    pub splitter: Splitter,
}

/// How a list of messages is read.
#[derive(Clone, Copy)]
pub struct MessageRules {
    /// The interface's words.
    pub words: MessageWords,
    /// Pass over unknown fields.
    pub ignore_unknown: bool,
}

/// Takes the conversation in `messages`.
pub fn take_messages(fields: &mut Fields, rules: MessageRules) -> Result<Vec<Message>, ApiError> {
    let list = fields.required("messages")?;
    let mut messages = read_messages(&fields.name("messages"), list, rules)?;
    name_answers(&mut messages);
    Ok(messages)
}

/// Reads a list of messages, which stands at `path`.
pub fn read_messages(path: &str, list: Value, rules: MessageRules) -> Result<Vec<Message>, ApiError> {
    let read = |(index, message)| read_message(&format!("{path}[{index}]"), message, rules);
    message_list(path, list)?
        .into_iter()
        .enumerate()
        .map(read)
        .collect()
}

/// The messages of a list, which stands at `path`, as they were sent.
pub fn message_list(path: &str, list: Value) -> Result<Vec<Value>, ApiError> {
    match list {
        Value::Array(list) if (1..=MAX_MESSAGES).contains(&list.len()) => Ok(list),
        other => {
            let problem = format!(
                "expected a list of 1 to {MAX_MESSAGES} messages, got {}",
                shown(&other)
            );
            Err(ApiError::field(path, problem))
        }
    }
}

/// Reads a message, which stands at `path`.
pub fn read_message(path: &str, message: Value, rules: MessageRules) -> Result<Message, ApiError> {
    let mut fields = Fields::of(path, message)?;
    let role = match fields.required("role")? {
        Value::String(role) if rules.words.roles.contains(&role.as_str()) => role,
        other => {
            let problem = format!(
                "expected one of {}, got {}",
                rules.words.roles.join(", "),
                shown(&other)
            );
            return Err(fields.error("role", problem));
        }
    };
    let tool_calls = match role == "assistant" {
        true => take_calls(&mut fields, rules)?,
        false => Vec::new(),
    };
    let has_thoughts = rules.words.message_fields.contains(&"reasoning_content");
    let reasoning_content = match has_thoughts && role == "assistant" {
        true => fields
            .text("reasoning_content")?
            .filter(|thoughts| !thoughts.is_empty()),
        false => None,
    };
    let tool_call_id = match role == "tool" {
        true => fields.text("tool_call_id")?,
        false => None,
    };
    let content = match fields.value("content") {
        // An assistant that calls tools need not say anything.
        None if !tool_calls.is_empty() => String::new(),
        None => return Err(fields.error("content", "missing: this field is required")),
        Some(content) => read_content(&fields.name("content"), content, rules)?,
    };
    check_type(&mut fields)?;
    rules
        .words
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
    Ok(Message {
        reasoning_content,
        tool_calls,
        tool_call_id,
        ..Message::new(role, content)
    })
}

/// Takes the `tool_calls` of an assistant's message.
fn take_calls(fields: &mut Fields, rules: MessageRules) -> Result<Vec<SaidCall>, ApiError> {
    let path = fields.name("tool_calls");
    let list = match fields.value("tool_calls") {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) if list.len() <= MAX_MESSAGES => list,
        Some(other) => {
            let problem = format!("expected a list of calls, got {}", shown(&other));
            return Err(ApiError::field(path, problem));
        }
    };
    let read = |(index, call)| read_call(Fields::of(&format!("{path}[{index}]"), call)?, rules);
    list.into_iter().enumerate().map(read).collect()
}

fn read_call(mut call: Fields, rules: MessageRules) -> Result<SaidCall, ApiError> {
    let missing = call.error("function", "missing: this field is required");
    let mut function = call.inner("function")?.ok_or(missing)?;
    let missing = function.error("name", "missing: this field is required");
    let name = function.text("name")?.ok_or(missing)?;
    let arguments = read_arguments(&mut function)?;
    function.finish(&["name", "arguments"], rules.ignore_unknown)?;
    let id = call.text("id")?.unwrap_or_default();
    call.pass_over(&["type", "index"]);
    call.finish(&["id", "type", "index", "function"], rules.ignore_unknown)?;
    Ok(SaidCall { id, name, arguments })
}

/// Takes `arguments`: an object, or the text of one.
pub fn read_arguments(fields: &mut Fields) -> Result<Value, ApiError> {
    let value = match fields.value("arguments") {
        Some(Value::String(text)) if text.trim().is_empty() => Value::Object(serde_json::Map::new()),
        Some(Value::String(text)) => serde_json::from_str(&text).unwrap_or_default(),
        Some(value) => value,
        None => Value::Object(serde_json::Map::new()),
    };
    match value.is_object() {
        true => Ok(value),
        false => Err(fields.error("arguments", "expected an object, or the text of one")),
    }
}

/// Lets every answer of a tool name the tool, where the call before it is known.
pub fn name_answers(messages: &mut [Message]) {
    for index in 0..messages.len() {
        let (before, rest) = messages.split_at_mut(index);
        let message = &mut rest[0];
        let Some(id) = message.tool_call_id.as_ref().filter(|_| message.name.is_none()) else {
            continue;
        };
        let calls = before.iter().rev().flat_map(|message| &message.tool_calls);
        let call = calls.into_iter().find(|call| call.id == *id);
        message.name = call.map(|call| call.name.clone());
    }
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
    if !kind
        .as_str()
        .is_some_and(|kind| rules.words.part_types.contains(&kind))
    {
        let types = rules.words.part_types.join("\" or \"");
        let problem = format!("only parts of type \"{types}\" are taken, got {}", shown(&kind));
        return Err(fields.error("type", problem));
    }
    let missing = fields.error("text", "missing: this field is required");
    let text = fields.text("text")?.ok_or(missing)?;
    rules
        .words
        .part_fields
        .iter()
        .for_each(|name| _ = fields.value(name));
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

/// Whether the answer to a prompt may begin with thoughts.
fn thinking(template: &ChatTemplate, prompt: &str) -> Thinking {
    let end = prompt.trim_end();
    if !template.mentions("<think>") && !template.mentions("</think>") || end.ends_with("</think>") {
        Thinking::Never
    } else if end.ends_with("<think>") {
        Thinking::Begun
    } else {
        Thinking::MayBegin
    }
}

impl App {
    /// The prompt text of a conversation, which ends where the answer begins if `answer_follows`.
    pub fn render(&self, messages: &[Message], answer_follows: bool) -> Result<String, ApiError> {
        self.render_with(messages, &Rules::text(), answer_follows)
    }

    fn render_with(
        &self,
        messages: &[Message],
        rules: &Rules,
        answer_follows: bool,
    ) -> Result<String, ApiError> {
        let missing = || {
            ApiError::bad("this model has no chat template: use /v1/completions")
                .with_code("no_chat_template")
        };
        let template = self.model.template.as_ref().ok_or_else(missing)?;
        let tools: Vec<Value> = rules.tools.callable().map(|tool| tool.described()).collect();
        let turns = rules.turns(messages, self.style(rules));
        let text = match self.style(rules).is_own() && !tools.is_empty() {
            true => template.render_with_tools(&turns, Some(&tools.into()), answer_follows),
            false => template.render(&turns, answer_follows),
        };
        text.map_err(|error| ApiError::field("messages", error.to_string()))
    }

    /// How the answer's calls are written.
    fn style(&self, rules: &Rules) -> Style {
        let template = self.model.template.as_ref();
        let own = template.map_or(Style::Told, |template| Style::of(template, &self.model.tokenizer));
        rules.style(own)
    }

    /// The tokens of a conversation.
    pub fn chat_tokens(&self, messages: &[Message]) -> Result<Vec<u32>, ApiError> {
        self.counted_tokens(messages, &Rules::text())
    }

    /// The tokens of a conversation whose answer follows rules.
    pub fn counted_tokens(&self, messages: &[Message], rules: &Rules) -> Result<Vec<u32>, ApiError> {
        // The template writes special tokens itself.
        self.encode(&self.render_with(messages, rules, true)?, false)
    }

    /// The tokens of a conversation and what its answer must look like. Waits for a grammar; not for asynchronous threads.
    pub fn chat_prompt(&self, messages: &[Message], rules: &Rules) -> Result<ChatPrompt, ApiError> {
        let text = self.render_with(messages, rules, true)?;
        let template = self.model.template.as_ref();
        let thinking = template.map_or(Thinking::Never, |template| thinking(template, &text));
        let style = self.style(rules);
        Ok(ChatPrompt {
            // The template writes special tokens itself.
            tokens: self.encode(&text, false)?,
            constraint: rules.constraint(&self.model.grammars, (thinking, style))?,
            splitter: Splitter::new(thinking, rules.tools.may_be_called().then_some(style)),
        })
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
