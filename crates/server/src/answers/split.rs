//! The text of an answer, piece by piece, divided into thoughts, text and tool calls.
//!
//! Pieces may end anywhere, also inside a marker: what could be the beginning of one is held back. A call begins when its name is there;
//! its arguments follow as they come. However a text is cut into pieces, its parts join to the same thoughts, text and calls.

use super::style::Style;
use super::written_call::{Head, Scan, closed, head};

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
    /// A call of this tool begins.
    Name(String),
    /// More of its arguments.
    Arguments(String),
    /// All of the call is there.
    CallEnd,
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
    /// Calls in order, those that were cut off left out.
    pub calls: Vec<Call>,
    /// One that is not all there yet.
    open: Option<Call>,
}

/// Divides one answer.
#[derive(Debug, Clone)]
pub struct Splitter {
    /// How calls are written, where they are looked for.
    calls: Option<Style>,
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
    /// Nothing but white space has come of the answer itself, which may be a call or calls without a marker.
    Opening,
    Text,
    /// What comes before the arguments of a call.
    Calling,
    Arguments(Scan),
    /// What comes behind them.
    Closing,
    /// What comes behind a call in a list.
    Between,
}

impl Splitter {
    /// `calls` says how calls are written, where they are looked for.
    pub fn new(thinking: Thinking, calls: Option<Style>) -> Self {
        let state = match thinking {
            Thinking::Never => opening(calls),
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
        parts.retain(|part| {
            let text = match part {
                Part::Text(text) | Part::Thought(text) | Part::Arguments(text) => text,
                Part::Name(_) | Part::CallEnd => return true,
            };
            !text.is_empty()
        });
        parts
    }

    /// Gives what was held back: no marker can come any more. A call that is not complete has no end.
    pub fn finish(&mut self) -> Vec<Part> {
        let rest = std::mem::take(&mut self.held);
        match self.state {
            _ if rest.is_empty() => Vec::new(),
            State::Thinking => vec![Part::Thought(rest)],
            State::Beginning | State::Opening | State::Text | State::After { calls_only: false } => {
                vec![Part::Text(rest)]
            }
            State::Calling
            | State::Arguments(_)
            | State::Closing
            | State::Between
            | State::After { calls_only: true } => Vec::new(),
        }
    }

    /// One step; whether another may follow.
    fn advance(&mut self, parts: &mut Vec<Part>) -> bool {
        match self.state {
            State::Beginning => self.begin(),
            State::Thinking => self.think(parts),
            State::After { calls_only } => self.pass_over(calls_only),
            State::Opening => self.open(),
            State::Text => self.take_text(parts),
            State::Between => self.go_on_listing(),
            State::Calling => self.take_name(parts),
            State::Arguments(scan) => self.take_arguments(scan, parts),
            State::Closing => self.take_end(parts),
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
            self.state = opening(self.calls);
        }
        true
    }

    /// Calls without a marker begin the answer or do not come.
    fn open(&mut self) -> bool {
        let begun = self.held.trim_start();
        let listed = matches!(self.calls, Some(Style::Listed(_)));
        let call = match (listed, begun.strip_prefix('[')) {
            (true, Some(list)) => list.trim_start(),
            (true, None) if !begun.is_empty() => "text",
            _ => begun,
        };
        if call.is_empty() {
            return false;
        }
        self.state = State::Text;
        if call.starts_with('{') {
            self.held = call.to_owned();
            self.state = State::Calling;
        }
        true
    }

    /// Another call of a list, or its end.
    fn go_on_listing(&mut self) -> bool {
        let Some(rest) = self.held.trim_start().strip_prefix(',') else {
            return false;
        };
        self.held = rest.to_owned();
        self.state = State::Calling;
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
            self.state = match calls_only {
                true => State::Text,
                false => opening(self.calls),
            };
        }
        is_over
    }

    fn take_text(&mut self, parts: &mut Vec<Part>) -> bool {
        // Without a marker a call begins the answer.
        if !matches!(self.calls, Some(Style::Told | Style::Marked)) {
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

    fn take_name(&mut self, parts: &mut Vec<Part>) -> bool {
        let arguments = self.calls.unwrap_or_default().arguments();
        let Head::Read { name, len } = head(&self.held, arguments) else {
            return false;
        };
        self.held.drain(..len);
        self.state = State::Arguments(Scan::default());
        parts.push(Part::Name(name));
        true
    }

    fn take_arguments(&mut self, mut scan: Scan, parts: &mut Vec<Part>) -> bool {
        let end = scan.find_end(&self.held);
        let rest = end.map_or_else(String::new, |end| self.held.split_off(end));
        parts.push(Part::Arguments(std::mem::replace(&mut self.held, rest)));
        self.state = match end {
            Some(_) => State::Closing,
            None => State::Arguments(scan),
        };
        end.is_some()
    }

    fn take_end(&mut self, parts: &mut Vec<Part>) -> bool {
        let (marker, next) = match self.calls {
            Some(Style::Listed(_)) => ("", State::Between),
            Some(Style::Bare) => ("", State::After { calls_only: true }),
            _ => (CALL_END, State::After { calls_only: true }),
        };
        let Some(len) = closed(&self.held, marker) else {
            return false;
        };
        self.held.drain(..len);
        self.state = next;
        parts.push(Part::CallEnd);
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

/// What an answer begins with behind its thoughts.
fn opening(calls: Option<Style>) -> State {
    match calls {
        Some(Style::Bare | Style::Listed(_)) => State::Opening,
        _ => State::Text,
    }
}

impl Parts {
    /// The parts of a whole answer.
    pub fn of(mut splitter: Splitter, text: &str) -> Self {
        let mut all = Self::default();
        let parts = splitter.push(text).into_iter();
        parts.chain(splitter.finish()).for_each(|part| all.add(part));
        all.open = None;
        all
    }

    fn add(&mut self, part: Part) {
        match part {
            Part::Thought(thought) => self.thought += &thought,
            Part::Text(text) => self.text += &text,
            Part::Name(name) => {
                let arguments = String::new();
                self.open = Some(Call { name, arguments });
            }
            Part::Arguments(piece) => self.open.iter_mut().for_each(|call| call.arguments += &piece),
            Part::CallEnd => self.calls.extend(self.open.take()),
        }
    }
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
        all.open = None;
        all
    }

    #[test]
    fn parts_do_not_depend_on_how_a_text_is_cut() {
        let call = r#"<tool_call>{"name": "f", "arguments": {"a": "</tool_call>", "b": [{}, "}\\\"{\u{e9}"]}}</tool_call>"#;
        let texts = [
            String::new(),
            "Hello <tool_cal then".to_owned(),
            format!("Wait.{call}\n{call}\n"),
            format!("<think>a < b</think>\n\nSo{call}"),
            "</think>only text <think>".to_owned(),
            " [ {\"name\": \"f\", \"arguments\": {\"a\": \"]\"}}, {\"name\": \"g\", \"arguments\": {}}]"
                .to_owned(),
            "<think>x</think>\n{\"name\": \"f\", \"parameters\": {\"a\": \"}\"}} \n".to_owned(),
            "[1, 2] is a list".to_owned(),
            format!("{call} <tool_call>{{\"name\": \"f\""),
            format!("{call} <tool_call>\n{{\n  \"name\" : \"f\",\n \"arguments\":\n{{\"a\": [1,"),
            "<tool_call>{\"name\": 7, \"arguments\": {}}</tool_call>".to_owned(),
            "  <think>unfinished </thin".to_owned(),
        ];
        for thinking in [Thinking::Never, Thinking::MayBegin, Thinking::Begun] {
            for calls in [None, Some(Style::Told), Some(Style::Bare), Some(Style::Listed(7))] {
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
        let parts = Parts::of(Splitter::new(Thinking::MayBegin, Some(Style::Marked)), text);
        let arguments = "{\"n\": 1e999}".to_owned();
        let name = "f".to_owned();
        assert_eq!((parts.thought.as_str(), parts.text.as_str()), ("hm", "See "));
        assert_eq!(parts.calls, [Call { name, arguments }]);
        let parts = Parts::of(Splitter::new(Thinking::Never, None), text);
        assert_eq!(parts.text, text);
        // A call that was cut off is no call, but its pieces came.
        let cut = Parts::of(
            Splitter::new(Thinking::MayBegin, Some(Style::Marked)),
            &text[..text.len() - 3],
        );
        assert!(cut.calls.is_empty() && cut.text == "See ");
    }

    #[test]
    fn calls_without_markers_begin_the_answer() {
        let call = |name: &str, arguments: &str| Call {
            name: name.into(),
            arguments: arguments.into(),
        };
        let bare = Splitter::new(Thinking::MayBegin, Some(Style::Bare));
        let parts = Parts::of(
            bare.clone(),
            "<think>x</think>\n{\"name\": \"f\", \"parameters\": {\"a\": 1}}",
        );
        assert_eq!(parts.calls, [call("f", "{\"a\": 1}")]);
        let parts = Parts::of(bare, "See {\"name\": \"f\", \"parameters\": {}}");
        assert!(parts.calls.is_empty() && parts.text.starts_with("See {"));
        let listed = Splitter::new(Thinking::Never, Some(Style::Listed(5)));
        let list = "[{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"g\", \"arguments\": {\"b\": []}}]";
        let parts = Parts::of(listed.clone(), list);
        assert_eq!(parts.calls, [call("f", "{}"), call("g", "{\"b\": []}")]);
        assert_eq!(Parts::of(listed, "[1] and so on").text, "[1] and so on");
    }

    #[test]
    fn arguments_are_given_out_as_they_come() {
        let mut splitter = Splitter::new(Thinking::Never, Some(Style::Told));
        let mut pieces = Vec::new();
        for piece in [
            "Hi<tool_call>{\"name\": \"f",
            "\", \"arguments\": {\"a\"",
            ": \"}",
            "\"}",
            "}</tool",
            "_call>",
        ] {
            pieces.push(splitter.push(piece));
        }
        let (text, name) = (Part::Text("Hi".into()), Part::Name("f".into()));
        let arguments = |piece: &str| Part::Arguments(piece.into());
        let expected = [
            vec![text],
            vec![name, arguments("{\"a\"")],
            vec![arguments(": \"}")],
            vec![arguments("\"}")],
            vec![],
            vec![Part::CallEnd],
        ];
        assert_eq!(pieces, expected);
    }
}
