//! The content of an answer as Anthropic writes it: blocks of thoughts, text and tool calls, whole and as events.

use serde_json::{Value, json};

use crate::answers::{Call, Part, Parts, Splitter};
use crate::error::ApiError;
use crate::streaming::event;

/// The blocks of an answer.
#[derive(Clone)]
pub struct Blocks {
    splitter: Splitter,
    /// What the ids of its calls begin with.
    call_id: String,
    num_calls: usize,
    /// The kind of the block that is open.
    open: Option<&'static str>,
    /// Index of the open block, or of the next one.
    index: usize,
}

impl Blocks {
    /// Nothing has come yet.
    pub fn new(splitter: Splitter, call_id: String) -> Self {
        Self {
            splitter,
            call_id,
            num_calls: 0,
            open: None,
            index: 0,
        }
    }

    /// The events that more text brings.
    pub fn push(&mut self, text: &str) -> String {
        let parts = self.splitter.push(text);
        parts.into_iter().map(|part| self.part(part)).collect()
    }

    /// The events up to the end of the last block; there is one at least.
    pub fn finish(&mut self, rest: &str) -> String {
        let mut events = self.push(rest);
        for part in self.splitter.finish() {
            events += &self.part(part);
        }
        if self.index == 0 && self.open.is_none() {
            events += &self.begin("text", json!({"type": "text", "text": ""}));
        }
        events + &self.close()
    }

    /// Whether there was a call.
    pub fn has_calls(&self) -> bool {
        self.num_calls > 0
    }

    /// All blocks of a whole answer.
    ///
    /// # Errors
    /// Arguments with a number that no number format holds.
    pub fn whole(self, text: &str) -> Result<(Vec<Value>, bool), ApiError> {
        let parts = Parts::of(self.splitter, text);
        let mut blocks = Vec::new();
        if !parts.thought.is_empty() {
            blocks.push(json!({"type": "thinking", "thinking": parts.thought, "signature": ""}));
        }
        if !parts.text.is_empty() || parts.calls.is_empty() {
            blocks.push(json!({"type": "text", "text": parts.text}));
        }
        for (index, call) in parts.calls.iter().enumerate() {
            let input: Value = serde_json::from_str(&call.arguments)
                .map_err(|error| ApiError::internal(format!("the arguments of a call: {error}")))?;
            let id = format!("{}-{index}", self.call_id);
            blocks.push(json!({"type": "tool_use", "id": id, "name": call.name, "input": input}));
        }
        Ok((blocks, !parts.calls.is_empty()))
    }

    fn part(&mut self, part: Part) -> String {
        match part {
            Part::Text(text) => {
                let begun = json!({"type": "text", "text": ""});
                self.within("text", begun, json!({"type": "text_delta", "text": text}))
            }
            Part::Thought(thought) => {
                let begun = json!({"type": "thinking", "thinking": "", "signature": ""});
                self.within(
                    "thinking",
                    begun,
                    json!({"type": "thinking_delta", "thinking": thought}),
                )
            }
            Part::Call(call) => self.call(&call),
        }
    }

    fn call(&mut self, call: &Call) -> String {
        let id = format!("{}-{}", self.call_id, self.num_calls);
        self.num_calls += 1;
        let begun = json!({"type": "tool_use", "id": id, "name": call.name, "input": {}});
        let delta = json!({"type": "input_json_delta", "partial_json": call.arguments});
        let closed = self.close();
        closed + &self.begin("tool_use", begun) + &self.delta(delta) + &self.close()
    }

    /// A delta within a block of its kind.
    fn within(&mut self, kind: &'static str, begun: Value, delta: Value) -> String {
        let mut events = String::new();
        if self.open != Some(kind) {
            events += &self.close();
            events += &self.begin(kind, begun);
        }
        events + &self.delta(delta)
    }

    fn begin(&mut self, kind: &'static str, block: Value) -> String {
        self.open = Some(kind);
        event_of(
            "content_block_start",
            json!({"index": self.index, "content_block": block}),
        )
    }

    fn delta(&self, delta: Value) -> String {
        event_of(
            "content_block_delta",
            json!({"index": self.index, "delta": delta}),
        )
    }

    fn close(&mut self) -> String {
        if self.open.take().is_none() {
            return String::new();
        }
        self.index += 1;
        event_of("content_block_stop", json!({"index": self.index - 1}))
    }
}

/// Anthropic's events say their name in the data too.
pub fn event_of(name: &str, mut data: Value) -> String {
    data["type"] = name.into();
    event(Some(name), &data)
}
