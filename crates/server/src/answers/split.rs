//! The text of an answer, piece by piece, divided into thoughts, text and tool calls.
//!
//! Pieces may end anywhere, also inside a marker: what could be the beginning of one is held back. A call is given out when all of it is
//! there and its arguments are JSON. However a text is cut into pieces, its parts join to the same thoughts, text and calls.

use serde::Deserialize;
use serde_json::value::RawValue;

/// Markers around thoughts and calls.
pub const THINK: &str = "<think>";
pub const THINK_END: &str = "</think>";
pub const CALL: &str = "<tool_call>";
pub const CALL_END: &str = "</tool_call>";

/// Whether an answer may begin with thoughts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Thinking {
    /// The template marks none, or the prompt has ended them.
    #[default]
    Never,
    /// The answer begins them, or not.
    MayBegin,
    /// The prompt has begun them.
    Begun,
}

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Thoughts, without their markers.
    Thought(String),
    /// Text.
    Text(String),
    /// A whole call.
    Call(Call),
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The tool.
    pub name: String,
    /// Its arguments: the JSON of an object.
    pub arguments: String,
}

/// All parts of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// Thoughts, joined.
    pub thought: String,
    /// Text, joined.
    pub text: String,
    /// Calls in order.
    pub calls: Vec<Call>,
}

/// Divides one answer.
#[derive(Debug, Clone)]
pub struct Splitter {
    calls: bool,
    state: State,
    held: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing but white space has come, and thoughts may.
    Beginning,
    Thinking,
    /// Line breaks after thoughts and calls belong to nobody.
    After {
        calls_only: bool,
    },
    Text,
    Calling,
}

/// What the text of a call says.
#[derive(Deserialize)]
struct Written<'a> {
    name: String,
    #[serde(borrow)]
    arguments: &'a RawValue,
}

impl Splitter {
    /// `calls` says whether calls are looked for.
    pub fn new(thinking: Thinking, calls: bool) -> Self {
        let state = match thinking {
            Thinking::Never => State::Text,
            Thinking::MayBegin => State::Beginning,
            Thinking::Begun => State::Thinking,
        };
        Self {
            calls,
            state,
            held: String::new(),
        }
    }

    /// Takes more text; gives the parts that it makes certain.
    pub fn push(&mut self, text: &str) -> Vec<Part> {
        self.held += text;
        let mut parts = Vec::new();
        while self.advance(&mut parts) {}
        parts.retain(|part| !matches!(part, Part::Text(text) | Part::Thought(text) if text.is_empty()));
        parts
    }

    /// Gives what was held back: no marker can come any more. A call that is not complete is none.
    pub fn finish(&mut self) -> Vec<Part> {
        let rest = std::mem::take(&mut self.held);
        match self.state {
            _ if rest.is_empty() => Vec::new(),
            State::Thinking => vec![Part::Thought(rest)],
            State::Beginning | State::Text | State::After { calls_only: false } => vec![Part::Text(rest)],
            State::Calling | State::After { calls_only: true } => Vec::new(),
        }
    }

    /// One step; whether another may follow.
    fn advance(&mut self, parts: &mut Vec<Part>) -> bool {
        match self.state {
            State::Beginning => self.begin(),
            State::Thinking => self.think(parts),
            State::After { calls_only } => self.pass_over(calls_only),
            State::Text => self.take_text(parts),
            State::Calling => self.take_call(parts),
        }
    }

    fn begin(&mut self) -> bool {
        let begun = self.held.trim_start();
        if let Some(rest) = begun.strip_prefix(THINK) {
            self.held = rest.to_owned();
            self.state = State::Thinking;
        } else if THINK.starts_with(begun) {
            return false;
        } else {
            self.state = State::Text;
        }
        true
    }

    fn think(&mut self, parts: &mut Vec<Part>) -> bool {
        let (thought, ended) = self.take_until(THINK_END);
        parts.push(Part::Thought(thought));
        if ended {
            self.state = State::After { calls_only: false };
        }
        ended
    }

    fn pass_over(&mut self, calls_only: bool) -> bool {
        let rest = self.held.trim_start().to_owned();
        let is_over = !rest.is_empty();
        if calls_only || is_over {
            self.held = rest;
        }
        if is_over {
            self.state = State::Text;
        }
        is_over
    }

    fn take_text(&mut self, parts: &mut Vec<Part>) -> bool {
        if !self.calls {
            parts.push(Part::Text(std::mem::take(&mut self.held)));
            return false;
        }
        let (text, ended) = self.take_until(CALL);
        parts.push(Part::Text(text));
        if ended {
            self.state = State::Calling;
        }
        ended
    }

    /// The end's marker may stand in a text of the arguments: the first place counts where what came before is a call.
    fn take_call(&mut self, parts: &mut Vec<Part>) -> bool {
        let ends: Vec<usize> = self.held.match_indices(CALL_END).map(|(at, _)| at).collect();
        let call = ends
            .into_iter()
            .find_map(|at| Some((at, read_call(&self.held[..at])?)));
        let Some((at, call)) = call else {
            return false;
        };
        parts.push(Part::Call(call));
        self.held.drain(..at + CALL_END.len());
        self.state = State::After { calls_only: true };
        true
    }

    /// What is certain to come before the marker, and whether the marker came: then it is taken too.
    fn take_until(&mut self, marker: &str) -> (String, bool) {
        if let Some(at) = self.held.find(marker) {
            let before = self.held[..at].to_owned();
            self.held.drain(..at + marker.len());
            return (before, true);
        }
        let kept = (1..marker.len())
            .rev()
            .find(|&len| self.held.ends_with(&marker[..len]))
            .unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - kept);
        (std::mem::replace(&mut self.held, rest), false)
    }
}

impl Parts {
    /// The parts of a whole answer.
    pub fn of(mut splitter: Splitter, text: &str) -> Self {
        let mut all = Self::default();
        let parts = splitter.push(text).into_iter();
        parts.chain(splitter.finish()).for_each(|part| all.add(part));
        all
    }

    fn add(&mut self, part: Part) {
        match part {
            Part::Thought(thought) => self.thought += &thought,
            Part::Text(text) => self.text += &text,
            Part::Call(call) => self.calls.push(call),
        }
    }
}

fn read_call(text: &str) -> Option<Call> {
    let Written { name, arguments } = serde_json::from_str(text).ok()?;
    let arguments = arguments.get().to_owned();
    arguments.starts_with('{').then_some(Call { name, arguments })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(splitter: &Splitter, text: &str, cuts: &[usize]) -> Parts {
        let mut splitter = splitter.clone();
        let (mut all, mut from) = (Parts::default(), 0);
        for &to in cuts.iter().chain([&text.len()]) {
            splitter
                .push(&text[from..to])
                .into_iter()
                .for_each(|part| all.add(part));
            from = to;
        }
        splitter.finish().into_iter().for_each(|part| all.add(part));
        all
    }

    #[test]
    fn parts_do_not_depend_on_how_a_text_is_cut() {
        let call = r#"<tool_call>{"name": "f", "arguments": {"a": "</tool_call>"}}</tool_call>"#;
        let texts = [
            String::new(),
            "Hello <tool_cal then".to_owned(),
            format!("Wait.{call}\n{call}\n"),
            format!("<think>a < b</think>\n\nSo{call}"),
            "</think>only text <think>".to_owned(),
            format!("{call} <tool_call>{{\"name\": \"f\""),
            "  <think>unfinished </thin".to_owned(),
        ];
        for thinking in [Thinking::Never, Thinking::MayBegin, Thinking::Begun] {
            for calls in [false, true] {
                let splitter = Splitter::new(thinking, calls);
                for text in &texts {
                    let whole = Parts::of(splitter.clone(), text);
                    for cut in 0..=text.len() {
                        assert_eq!(joined(&splitter, text, &[cut]), whole, "{text:?} cut at {cut}");
                    }
                    let all: Vec<usize> = (1..text.len()).collect();
                    assert_eq!(joined(&splitter, text, &all), whole, "{text:?}");
                }
            }
        }
    }

    #[test]
    fn thoughts_text_and_calls_are_told_apart() {
        let text = "<think>hm</think>\n\nSee <tool_call>\n{\"name\": \"f\", \"arguments\": {\"n\": 1e999}}\n</tool_call>";
        let parts = Parts::of(Splitter::new(Thinking::MayBegin, true), text);
        let arguments = "{\"n\": 1e999}".to_owned();
        let name = "f".to_owned();
        assert_eq!((parts.thought.as_str(), parts.text.as_str()), ("hm", "See "));
        assert_eq!(parts.calls, [Call { name, arguments }]);
        let parts = Parts::of(Splitter::new(Thinking::Never, false), text);
        assert_eq!(parts.text, text);
        // A call that was cut off is not given out.
        let cut = Parts::of(Splitter::new(Thinking::MayBegin, true), &text[..text.len() - 3]);
        assert!(cut.calls.is_empty() && cut.text == "See ");
    }
}
