//! Which texts the grammars of answers with calls and thoughts allow.

use std::path::Path;
use std::sync::Arc;

use dualgrain::engine::tokenizer::Tokenizer;
use dualgrain::engine::{Next, Progress, SharedConstraint, TokenMask};
use serde_json::{Value, json};

use super::{Form, Parts, Rules, Splitter, Thinking, Tools};
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
        rules.constraint(&self.grammars, thinking).unwrap().unwrap()
    }

    /// Whether a text may be all of an answer.
    fn allows(&self, constraint: &SharedConstraint, text: &str) -> bool {
        let mut state = constraint.0.begin().unwrap();
        let mut mask = TokenMask::new(VOCAB_SIZE);
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
    let parts = Parts::of(Splitter::new(thinking, true), &called);
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
