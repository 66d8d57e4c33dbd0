//! The items of an answer to /v1/responses: thoughts, the message, calls of functions.

use serde_json::{Value, json};

use crate::answers::{Call, Part, Splitter};

/// An event: its name and its data.
pub type Named = (&'static str, Value);

/// The items of one answer as they grow.
pub struct Items {
    splitter: Splitter,
    /// What the ids of items begin with.
    id: String,
    /// Those that are complete.
    done: Vec<Value>,
    open: Option<Open>,
}

/// The item that grows.
struct Open {
    is_message: bool,
    text: String,
}

impl Items {
    /// Nothing has come yet.
    pub fn new(splitter: Splitter, id: String) -> Self {
        Self {
            splitter,
            id,
            done: Vec::new(),
            open: None,
        }
    }

    /// The events that more text brings.
    pub fn push(&mut self, text: &str) -> Vec<Named> {
        let parts = self.splitter.push(text);
        self.add(parts)
    }

    /// The events up to the end of the last item, whose status it is; there is one at least.
    pub fn finish(&mut self, rest: &str, status: &str) -> Vec<Named> {
        let mut events = self.push(rest);
        let parts = self.splitter.finish();
        events.extend(self.add(parts));
        if self.open.is_none() && self.done.is_empty() {
            events.extend(self.begin(true));
        }
        events.extend(self.close(status));
        events
    }

    /// All items that are complete.
    pub fn done(&self) -> &[Value] {
        &self.done
    }

    fn add(&mut self, parts: Vec<Part>) -> Vec<Named> {
        let mut events = Vec::new();
        for part in parts {
            match part {
                Part::Text(text) => events.extend(self.grow(true, &text)),
                Part::Thought(thought) => events.extend(self.grow(false, &thought)),
                Part::Call(call) => {
                    events.extend(self.close("completed"));
                    events.extend(self.call(&call));
                }
            }
        }
        events
    }

    fn grow(&mut self, is_message: bool, text: &str) -> Vec<Named> {
        let mut events = Vec::new();
        if self
            .open
            .as_ref()
            .is_none_or(|open| open.is_message != is_message)
        {
            events.extend(self.close("completed"));
            events.extend(self.begin(is_message));
        }
        if let Some(open) = &mut self.open {
            open.text += text;
        }
        let (name, logprobs) = match is_message {
            true => ("response.output_text.delta", Some(json!([]))),
            false => ("response.reasoning_text.delta", None),
        };
        let mut delta = json!({"delta": text});
        if let Some(logprobs) = logprobs {
            delta["logprobs"] = logprobs;
        }
        events.push((name, self.in_part(delta)));
        events
    }

    fn begin(&mut self, is_message: bool) -> Vec<Named> {
        let open = Open {
            is_message,
            text: String::new(),
        };
        let part = part(&open);
        let mut item = self.item(&open, "in_progress");
        item["content"] = json!([]);
        self.open = Some(open);
        vec![
            (
                "response.output_item.added",
                json!({"output_index": self.done.len(), "item": item}),
            ),
            ("response.content_part.added", self.in_part(json!({"part": part}))),
        ]
    }

    fn close(&mut self, status: &str) -> Vec<Named> {
        let Some(open) = self.open.take() else {
            return Vec::new();
        };
        let (name, mut text) = match open.is_message {
            true => (
                "response.output_text.done",
                json!({"text": open.text, "logprobs": []}),
            ),
            false => ("response.reasoning_text.done", json!({"text": open.text})),
        };
        text = self.in_part(text);
        let ended = self.in_part(json!({"part": part(&open)}));
        let item = self.item(&open, status);
        let done = json!({"output_index": self.done.len(), "item": item.clone()});
        self.done.push(item);
        vec![
            (name, text),
            ("response.content_part.done", ended),
            ("response.output_item.done", done),
        ]
    }

    fn call(&mut self, call: &Call) -> Vec<Named> {
        let (index, id) = (self.done.len(), self.next_id("fc"));
        let item = |arguments: &str, status: &str| {
            json!({
                "id": id, "type": "function_call", "status": status, "call_id": format!("call_{id}"),
                "name": call.name, "arguments": arguments
            })
        };
        let whole = item(&call.arguments, "completed");
        let arguments = &call.arguments;
        let events = vec![
            (
                "response.output_item.added",
                json!({"output_index": index, "item": item("", "in_progress")}),
            ),
            (
                "response.function_call_arguments.delta",
                json!({"output_index": index, "item_id": id, "delta": arguments}),
            ),
            (
                "response.function_call_arguments.done",
                json!({"output_index": index, "item_id": id, "name": call.name, "arguments": arguments}),
            ),
            (
                "response.output_item.done",
                json!({"output_index": index, "item": whole.clone()}),
            ),
        ];
        self.done.push(whole);
        events
    }

    fn item(&self, open: &Open, status: &str) -> Value {
        let content = json!([part(open)]);
        match open.is_message {
            true => json!({
                "id": self.next_id("msg"), "type": "message", "status": status, "role": "assistant", "content": content
            }),
            false => json!({
                "id": self.next_id("rs"), "type": "reasoning", "status": status, "summary": [], "content": content
            }),
        }
    }

    /// An event about the only part of the item that grows.
    fn in_part(&self, mut data: Value) -> Value {
        let kind = match &self.open {
            Some(Open {
                is_message: false, ..
            }) => "rs",
            _ => "msg",
        };
        data["item_id"] = self.next_id(kind).into();
        data["output_index"] = self.done.len().into();
        data["content_index"] = 0.into();
        data
    }

    fn next_id(&self, kind: &str) -> String {
        format!("{kind}_{}_{}", self.id, self.done.len())
    }
}

fn part(open: &Open) -> Value {
    match open.is_message {
        true => json!({"type": "output_text", "text": open.text, "annotations": [], "logprobs": []}),
        false => json!({"type": "reasoning_text", "text": open.text}),
    }
}
