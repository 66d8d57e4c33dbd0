//! All that a request says of its answer's form, and the constraint that comes of it.

use dualgrain::engine::SharedConstraint;

use super::call_grammar::grammar;
use super::form::Form;
use super::said::{Message, SaidCall};
use super::split::Thinking;
use super::style::Style;
use super::tool::Tools;
use super::tool_prompt::in_text;
use crate::error::ApiError;
use crate::grammar::{Checked, Grammars, check};

/// What an answer may be.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The form of what is no call.
    pub form: Form,
    /// The tools it may call.
    pub tools: Tools,
}

impl Rules {
    /// A text.
    pub fn text() -> Self {
        Self {
            form: Form::Text,
            tools: Tools::none(),
        }
    }

    /// Whether the answer is anything but free text.
    pub fn are_strict(&self) -> bool {
        !self.form.is_text() || self.tools.may_be_called()
    }

    /// The conversation as the template reads it, with calls in this style.
    pub fn turns(&self, messages: &[Message], style: Style) -> Vec<Message> {
        match style {
            Style::Told => in_text(messages, &self.tools),
            Style::Marked => messages.to_vec(),
            Style::Bare => messages.iter().flat_map(one_call_each).collect(),
            Style::Listed(_) => messages.iter().map(with_short_ids).collect(),
        }
    }

    /// How calls are written where the model writes them as `own`. Beside a schema they need markers: without them nobody could tell a call from
    /// a value.
    pub fn style(&self, own: Style) -> Style {
        match own {
            Style::Bare | Style::Listed(_) if !self.form.is_text() => Style::Told,
            _ => own,
        }
    }

    /// What the engine is to follow, with calls in this style; nothing for free text. Waits; not for asynchronous threads.
    ///
    /// # Errors
    /// A schema that is not followed, or too much work.
    pub fn constraint(
        &self,
        grammars: &Grammars,
        (thinking, style): (Thinking, Style),
    ) -> Result<Option<SharedConstraint>, ApiError> {
        if !self.are_strict() {
            return Ok(None);
        }
        let (field, form) = match &self.form {
            Form::Text => ("tools", None),
            Form::Schema { field, schema, .. } => (field.as_str(), Some(schema)),
        };
        if let (Some(schema), Thinking::Never, false) = (form, thinking, self.tools.may_be_called()) {
            return grammars.schema(field, schema).map(Some);
        }
        let refused = |error: crate::grammar::SchemaError| {
            ApiError::field(field, error.to_string()).with_code("unsupported_schema")
        };
        let form = form.map(check).transpose().map_err(refused)?;
        let lark = grammar(&self.tools, form.as_ref(), thinking, style);
        let tools = self.tools.callable();
        let mut schemas: Vec<(&str, Checked)> = tools
            .map(|tool| (tool.field.as_str(), tool.parameters.clone()))
            .collect();
        schemas.extend(form.map(|form| (field, form)));
        grammars.lark(lark, &schemas).map(Some)
    }
}

/// Llama's templates take one call of a turn: several become turns of their own.
fn one_call_each(message: &Message) -> Vec<Message> {
    if message.tool_calls.len() < 2 {
        return vec![message.clone()];
    }
    let turn = |call: &SaidCall| Message {
        tool_calls: vec![call.clone()],
        ..message.clone()
    };
    message.tool_calls.iter().map(turn).collect()
}

/// Mistral's templates take ids of nine letters and digits alone.
fn with_short_ids(message: &Message) -> Message {
    let mut message = message.clone();
    message
        .tool_calls
        .iter_mut()
        .for_each(|call| call.id = short_id(&call.id));
    message.tool_call_id = message.tool_call_id.as_deref().map(short_id);
    message
}

/// Such ids stay as they are, others become one that is always the same: prompts must not change from turn to turn.
fn short_id(id: &str) -> String {
    if id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return id.to_owned();
    }
    // FNV-1a.
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{:09x}", hash % (1 << 36))
}
