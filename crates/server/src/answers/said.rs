//! Turns of a conversation with the tool calls in them, as chat templates read them.

use serde::Serialize;
use serde_json::{Value, json};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Message {
    /// Who speaks: "system", "user", "assistant", "tool".
    pub role: String,
    /// What is said.
    pub content: String,
    /// What the assistant thought before; templates decide which of it the model is shown again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Calls that the assistant made.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_openai")]
    pub tool_calls: Vec<SaidCall>,
    /// The call that a tool answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The tool that answers, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A call that was made in an earlier turn.
#[derive(Debug, Clone, PartialEq)]
pub struct SaidCall {
    /// What its answer names.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments, an object.
    pub arguments: Value,
}

impl Message {
    /// A turn of text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
            reasoning_content: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            name: None,
        }
    }

    /// What a tool answered to the call `id`.
    pub fn of_tool(id: String, content: String) -> Self {
        Self {
            tool_call_id: Some(id),
            ..Self::new("tool", content)
        }
    }
}

/// As OpenAI writes calls, with arguments as an object: that is what templates expect.
fn as_openai<S: serde::Serializer>(calls: &[SaidCall], serializer: S) -> Result<S::Ok, S::Error> {
    let call = |call: &SaidCall| {
        let function = json!({"name": call.name, "arguments": call.arguments});
        json!({"id": call.id, "type": "function", "function": function})
    };
    calls
        .iter()
        .map(call)
        .collect::<Vec<Value>>()
        .serialize(serializer)
}
