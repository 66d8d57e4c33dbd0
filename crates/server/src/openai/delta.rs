//! The parts of an answer as chat writes them, whole and in pieces.

use serde_json::{Value, json};

use crate::answers::{Part, Parts, Splitter};

/// The pieces of one choice.
pub struct Deltas {
    splitter: Splitter,
    /// What the ids of its calls begin with.
    call_id: String,
    /// Calls that are all there.
    num_calls: usize,
}

impl Deltas {
    /// Nothing has come yet.
    pub fn new(splitter: Splitter, call_id: String) -> Self {
        Self {
            splitter,
            call_id,
            num_calls: 0,
        }
    }

    /// The deltas that more text brings.
    pub fn push(&mut self, text: &str) -> Vec<Value> {
        let parts = self.splitter.push(text);
        self.deltas(parts)
    }

    /// The last deltas.
    pub fn finish(&mut self, rest: &str) -> Vec<Value> {
        let mut parts = self.splitter.push(rest);
        parts.extend(self.splitter.finish());
        self.deltas(parts)
    }

    /// Whether there was a whole call.
    pub fn has_calls(&self) -> bool {
        self.num_calls > 0
    }

    fn deltas(&mut self, parts: Vec<Part>) -> Vec<Value> {
        let mut deltas = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Part::Text(text) => deltas.push(json!({"content": text})),
                Part::Thought(thought) => deltas.push(json!({"reasoning_content": thought})),
                Part::Name(name) => deltas.push(self.begin_call(&name)),
                Part::Arguments(piece) => {
                    let call = json!({"index": self.num_calls, "function": {"arguments": piece}});
                    deltas.push(json!({"tool_calls": [call]}));
                }
                Part::CallEnd => self.num_calls += 1,
            }
        }
        deltas
    }

    /// The name comes first, the arguments follow.
    fn begin_call(&self, name: &str) -> Value {
        let mut begun = written(name, "", &id(&self.call_id, self.num_calls));
        begun["index"] = self.num_calls.into();
        json!({"tool_calls": [begun]})
    }
}

/// A whole answer.
pub fn message(parts: &Parts, call_id: &str) -> Value {
    let is_silent = parts.text.is_empty() && !parts.calls.is_empty();
    let content = match is_silent {
        true => Value::Null,
        false => parts.text.clone().into(),
    };
    let mut message = json!({"role": "assistant", "content": content});
    if !parts.thought.is_empty() {
        message["reasoning_content"] = parts.thought.clone().into();
    }
    if !parts.calls.is_empty() {
        let calls = parts.calls.iter().enumerate();
        let calls = calls.map(|(index, call)| written(&call.name, &call.arguments, &id(call_id, index)));
        message["tool_calls"] = calls.collect::<Vec<Value>>().into();
    }
    message
}

fn id(begin: &str, index: usize) -> String {
    format!("{begin}-{index}")
}

fn written(name: &str, arguments: &str, id: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
}
