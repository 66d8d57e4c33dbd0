//! The content of an answer as Anthropic writes it: blocks of thoughts, text and tool calls, whole and as events.

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::answers::{Part, Parts, Splitter};
use crate::error::ApiError;
use crate::streaming::event;

/// A block of a whole answer.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Block {
    /// Text or thoughts.
    Said(Value),
    /// A call, whose arguments stay as they were written: JSON has numbers that no number format holds.
    Call {
        /// The word for a call.
        #[serde(rename = "type")]
        kind: &'static str,
        /// What its answer will name.
        id: String,
        /// The tool.
        name: String,
        /// An object.
        input: Box<RawValue>,
    },
}

/// The blocks of an answer.
#[derive(Clone)]
pub struct Blocks {
    splitter: Splitter,
    /// What the ids of its calls begin with.
    call_id: String,
    /// Calls that are all there.
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

    /// Whether there was a whole call.
    pub fn has_calls(&self) -> bool {
        self.num_calls > 0
    }

    /// All blocks of a whole answer, and whether there are calls.
    ///
    /// # Errors
    /// Arguments that are no JSON.
    pub fn whole(self, text: &str) -> Result<(Vec<Block>, bool), ApiError> {
        let parts = Parts::of(self.splitter, text);
        let mut blocks = Vec::new();
        if !parts.thought.is_empty() {
            let thinking = json!({"type": "thinking", "thinking": parts.thought, "signature": ""});
            blocks.push(Block::Said(thinking));
        }
        let has_calls = !parts.calls.is_empty();
        if !parts.text.is_empty() || !has_calls {
            blocks.push(Block::Said(json!({"type": "text", "text": parts.text})));
        }
        for (index, call) in parts.calls.into_iter().enumerate() {
            let input = RawValue::from_string(call.arguments);
            blocks.push(Block::Call {
                kind: "tool_use",
                id: format!("{}-{index}", self.call_id),
                name: call.name,
                input: input
                    .map_err(|error| ApiError::internal(format!("the arguments of a call: {error}")))?,
            });
        }
        Ok((blocks, has_calls))
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
            Part::Name(name) => self.begin_call(&name),
            Part::Arguments(piece) => self.delta(json!({"type": "input_json_delta", "partial_json": piece})),
            Part::CallEnd => {
                self.num_calls += 1;
                self.close()
            }
        }
    }

    fn begin_call(&mut self, name: &str) -> String {
        let id = format!("{}-{}", self.call_id, self.num_calls);
        let begun = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
        let closed = self.close();
        closed + &self.begin("tool_use", begun)
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
        let Some(kind) = self.open else {
            return String::new();
        };
        // Clients wait for a signature of thoughts; nobody checks it here.
        let signed = match kind {
            "thinking" => self.delta(json!({"type": "signature_delta", "signature": ""})),
            _ => String::new(),
        };
        let closed = event_of("content_block_stop", json!({"index": self.index}));
        self.open = None;
        self.index += 1;
        signed + &closed
    }
}

/// Anthropic's events say their name in the data too.
pub fn event_of(name: &str, mut data: Value) -> String {
    data["type"] = name.into();
    event(Some(name), &data)
}
