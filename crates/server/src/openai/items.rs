//! The items of an answer to /v1/responses: thoughts, the message, calls of functions.

use serde_json::{Value, json};

use crate::answers::{Part, Splitter};

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
    kind: Kind,
    /// Its text, or the arguments of a call.
    text: String,
}

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Message,
    Thoughts,
    /// A call of the tool of this name.
    Call(String),
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
            events.extend(self.begin(Kind::Message));
        }
        // A call that is still open was cut off.
        let status = match &self.open {
            Some(Open {
                kind: Kind::Call(_), ..
            }) => "incomplete",
            _ => status,
        };
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
                Part::Text(text) => events.extend(self.grow_as(Kind::Message, &text)),
                Part::Thought(thought) => events.extend(self.grow_as(Kind::Thoughts, &thought)),
                Part::Name(name) => {
                    events.extend(self.close("completed"));
                    events.extend(self.begin(Kind::Call(name)));
                }
                Part::Arguments(piece) => events.extend(self.grow(&piece)),
                Part::CallEnd => events.extend(self.close("completed")),
            }
        }
        events
    }

    /// Text of an item of this kind, which begins where another one is open.
    fn grow_as(&mut self, kind: Kind, text: &str) -> Vec<Named> {
        let mut events = Vec::new();
        if self.open.as_ref().is_none_or(|open| open.kind != kind) {
            events.extend(self.close("completed"));
            events.extend(self.begin(kind));
        }
        events.extend(self.grow(text));
        events
    }

    fn grow(&mut self, text: &str) -> Option<Named> {
        let open = self.open.as_mut()?;
        open.text += text;
        let (name, delta) = match open.kind {
            Kind::Message => (
                "response.output_text.delta",
                json!({"delta": text, "logprobs": []}),
            ),
            Kind::Thoughts => ("response.reasoning_text.delta", json!({"delta": text})),
            Kind::Call(_) => {
                let name = "response.function_call_arguments.delta";
                (name, json!({"delta": text}))
            }
        };
        Some((name, self.within(delta)))
    }

    fn begin(&mut self, kind: Kind) -> Vec<Named> {
        let is_call = matches!(kind, Kind::Call(_));
        let open = Open {
            kind,
            text: String::new(),
        };
        let mut item = self.item(&open, "in_progress");
        if !is_call {
            item["content"] = json!([]);
        }
        let part = part(&open);
        self.open = Some(open);
        let added = json!({"output_index": self.done.len(), "item": item});
        let mut events = vec![("response.output_item.added", added)];
        if !is_call {
            events.push(("response.content_part.added", self.within(json!({"part": part}))));
        }
        events
    }

    fn close(&mut self, status: &str) -> Vec<Named> {
        let Some(open) = &self.open else {
            return Vec::new();
        };
        let part_done = json!({"part": part(open)});
        let mut events = match &open.kind {
            Kind::Call(name) => {
                let whole = json!({"name": name, "arguments": open.text});
                vec![("response.function_call_arguments.done", self.within(whole))]
            }
            Kind::Message => {
                let text = json!({"text": open.text, "logprobs": []});
                vec![
                    ("response.output_text.done", self.within(text)),
                    ("response.content_part.done", self.within(part_done)),
                ]
            }
            Kind::Thoughts => vec![
                (
                    "response.reasoning_text.done",
                    self.within(json!({"text": open.text})),
                ),
                ("response.content_part.done", self.within(part_done)),
            ],
        };
        let item = self.item(open, status);
        let done = json!({"output_index": self.done.len(), "item": item});
        events.push(("response.output_item.done", done));
        self.open = None;
        self.done.push(item);
        events
    }

    fn item(&self, open: &Open, status: &str) -> Value {
        let id = self.next_id(&open.kind);
        match &open.kind {
            Kind::Message => json!({
                "id": id, "type": "message", "status": status, "role": "assistant", "content": [part(open)]
            }),
            Kind::Thoughts => json!({
                "id": id, "type": "reasoning", "status": status, "summary": [], "content": [part(open)]
            }),
            Kind::Call(name) => json!({
                "id": id, "type": "function_call", "status": status, "call_id": format!("call_{id}"), "name": name,
                "arguments": open.text
            }),
        }
    }

    /// An event about the item that grows, or about its only part.
    fn within(&self, mut data: Value) -> Value {
        let kind = self.open.as_ref().map_or(&Kind::Message, |open| &open.kind);
        data["item_id"] = self.next_id(kind).into();
        data["output_index"] = self.done.len().into();
        if !matches!(kind, Kind::Call(_)) {
            data["content_index"] = 0.into();
        }
        data
    }

    fn next_id(&self, kind: &Kind) -> String {
        let word = match kind {
            Kind::Message => "msg",
            Kind::Thoughts => "rs",
            Kind::Call(_) => "fc",
        };
        format!("{word}_{}_{}", self.id, self.done.len())
    }
}

fn part(open: &Open) -> Value {
    match open.kind {
        Kind::Thoughts => json!({"type": "reasoning_text", "text": open.text}),
        _ => json!({"type": "output_text", "text": open.text, "annotations": [], "logprobs": []}),
    }
}
