//! Which texts the grammars of answers with calls and thoughts allow.

use std::path::Path;
use std::sync::Arc;

use dualgrain::engine::tokenizer::Tokenizer;
use dualgrain::engine::{Next, Progress, SharedConstraint, TokenMask};
use serde_json::{Value, json};

use super::{Form, Parts, Rules, Splitter, Style, Thinking, Tools};
use crate::grammar::Grammars;
use crate::parameters::Fields;

const VOCAB_SIZE: usize = 8_192;
const CALL: &str = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>";

struct Model {
    tokenizer: Arc<Tokenizer>,
    grammars: Grammars,
}

impl Model {
    fn new() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/llama-tiny");
        let tokenizer = Arc::new(Tokenizer::load(&folder, VOCAB_SIZE).unwrap());
        let grammars = Grammars::new(Arc::clone(&tokenizer), &[0]);
        Self { tokenizer, grammars }
    }

    fn constraint(&self, more: Value, thinking: Thinking) -> SharedConstraint {
        self.styled(more, thinking, Style::Told)
    }

    fn styled(&self, more: Value, thinking: Thinking, style: Style) -> SharedConstraint {
        let parameters = json!({"properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": false});
        let mut request =
            json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}]});
        request
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let mut fields = Fields::of("", request).unwrap();
        let rules = Rules {
            form: Form::take_response_format(&mut fields, false).unwrap(),
            tools: Tools::take_chat(&mut fields, false).unwrap(),
        };
        rules
            .constraint(&self.grammars, (thinking, style))
            .unwrap()
            .unwrap()
    }

    /// Whether a text may be all of an answer.
    fn allows(&self, constraint: &SharedConstraint, text: &str) -> bool {
        self.allows_behind(constraint, None, text)
    }

    /// The same behind a token that has no text.
    fn allows_behind(&self, constraint: &SharedConstraint, mark: Option<u32>, text: &str) -> bool {
        let mut state = constraint.0.begin().unwrap();
        let mut mask = TokenMask::new(VOCAB_SIZE);
        if let Some(mark) = mark {
            state.allow_next(&mut mask).unwrap();
            if !mask.allows(mark) {
                return false;
            }
            state.accept(mark).unwrap();
        }
        // A character a token, as the vocabulary writes it.
        for (at, piece) in text.char_indices() {
            let written = if piece == ' ' {
                "Ġ".to_owned()
            } else if piece == '\n' {
                "Ċ".to_owned()
            } else {
                piece.to_string()
            };
            let token = self.tokenizer.token_id(&written).unwrap();
            mask.clear();
            state.allow_next(&mut mask).unwrap();
            if !mask.allows(token) {
                return false;
            }
            if state.accept(token).unwrap() == Progress::Complete {
                return at + piece.len_utf8() == text.len();
            }
        }
        mask.clear();
        state.allow_next(&mut mask).unwrap() == Next::MayEnd
    }
}

#[test]
fn text_is_free_until_a_call_begins() {
    let model = Model::new();
    let auto = model.constraint(json!({}), Thinking::Never);
    let good = [
        "Hello, sea",
        "",
        "a < b <tool_cal",
        "<think>x",
        &format!("Wait\n{CALL}"),
        &format!("{CALL}\n{CALL}"),
    ];
    for text in good {
        assert!(model.allows(&auto, text), "{text}");
    }
    for text in [
        "<tool_call>",
        "x<tool_call>{\"name\": \"g\"",
        &format!("{CALL} x"),
        "<tool_call>{}</tool_call>",
    ] {
        assert!(!model.allows(&auto, text), "{text}");
    }
    let single = model.constraint(json!({"parallel_tool_calls": false}), Thinking::Never);
    assert!(model.allows(&single, CALL) && !model.allows(&single, &format!("{CALL}{CALL}")));
}

#[test]
fn what_is_only_thought_of_is_no_call() {
    let model = Model::new();
    let thinking = Thinking::MayBegin;
    let auto = model.constraint(json!({}), thinking);
    let called = format!("<think>a <tool_call> b</think>\n\nSo {CALL}");
    for text in [
        "Hello",
        "<think>a <tool_call> b</think>hi",
        &called,
        "a <think> b",
        CALL,
    ] {
        assert!(model.allows(&auto, text), "{text}");
    }
    assert!(!model.allows(&auto, "<think>x <tool_call>{") && !model.allows(&auto, "<think>x"));
    let parts = Parts::of(Splitter::new(thinking, Some(Style::Told)), &called);
    assert_eq!((parts.text.as_str(), parts.calls.len()), ("So ", 1));
    let begun = model.constraint(json!({}), Thinking::Begun);
    assert!(model.allows(&begun, &format!("a <tool_call></think>\n{CALL}")));
    assert!(!model.allows(&begun, "never ended"));
}

#[test]
fn a_required_call_or_a_value_is_all_there_is() {
    let model = Model::new();
    let required = model.constraint(json!({"tool_choice": "required"}), Thinking::MayBegin);
    assert!(model.allows(&required, CALL) && model.allows(&required, &format!("<think>hm</think>{CALL}")));
    assert!(!model.allows(&required, "x") && !model.allows(&required, ""));
    let schema = json!({"type": "object", "properties": {"z": {"type": "boolean"}}, "required": ["z"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "s", "schema": schema}});
    let both = model.constraint(json!({"response_format": format}), Thinking::Never);
    assert!(model.allows(&both, CALL) && model.allows(&both, "{\"z\": true}"));
    assert!(!model.allows(&both, "x") && !model.allows(&both, "{}"));
}

#[test]
fn calls_without_markers_are_whole_answers() {
    let model = Model::new();
    let call = "{\"name\": \"f\", \"parameters\": {\"a\": 1}}";
    let bare = model.styled(json!({}), Thinking::Never, Style::Bare);
    for allowed in ["free text", "a {b}", call] {
        assert!(model.allows(&bare, allowed), "{allowed}");
    }
    for wrong in ["{}", " {\"name\": 7}", CALL_BARE_WRONG, &format!("{call} {call}")] {
        assert!(!model.allows(&bare, wrong), "{wrong}");
    }
    let required = json!({"tool_choice": "required"});
    let required = model.styled(required, Thinking::MayBegin, Style::Bare);
    assert!(model.allows(&required, call) && !model.allows(&required, "free text"));
    assert!(model.allows(&required, &format!("<think>hm</think>\n\n{call}")));
}

const CALL_BARE_WRONG: &str = "{\"name\": \"f\", \"arguments\": {\"a\": 1}}";

#[test]
fn a_list_of_calls_begins_with_its_token() {
    // The token of the user's mark stands for a mark of calls, which has no text either.
    const MARK: u32 = 2;
    let model = Model::new();
    let list = "[{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\": \"f\", \"arguments\": {\"a\": 2}}]";
    let auto = model.styled(json!({}), Thinking::Never, Style::Listed(MARK));
    assert!(model.allows(&auto, "[1] free text"));
    assert!(!model.allows(&auto, list), "without its token");
    assert!(model.allows_behind(&auto, Some(MARK), list));
    let single = json!({"parallel_tool_calls": false, "tool_choice": "required"});
    let single = model.styled(single, Thinking::Never, Style::Listed(MARK));
    assert!(!model.allows_behind(&single, Some(MARK), list));
    let one = "[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]";
    assert!(model.allows_behind(&single, Some(MARK), one) && !model.allows(&single, one));
}
