//! All that a request says of its answer's form, and the constraint that comes of it.

use dualgrain::engine::SharedConstraint;

use super::call_grammar::grammar;
use super::form::Form;
use super::said::Message;
use super::split::Thinking;
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

    /// The conversation as a template that knows nothing of tools reads it.
    pub fn in_text(&self, messages: &[Message]) -> Vec<Message> {
        in_text(messages, &self.tools)
    }

    /// What the engine is to follow; nothing for free text. Waits; not for asynchronous threads.
    ///
    /// # Errors
    /// A schema that is not followed, or too much work.
    pub fn constraint(
        &self,
        grammars: &Grammars,
        thinking: Thinking,
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
        let lark = grammar(&self.tools, form.as_ref(), thinking);
        let tools = self.tools.callable();
        let mut schemas: Vec<(&str, Checked)> = tools
            .map(|tool| (tool.field.as_str(), tool.parameters.clone()))
            .collect();
        schemas.extend(form.map(|form| (field, form)));
        grammars.lark(lark, &schemas).map(Some)
    }
}
