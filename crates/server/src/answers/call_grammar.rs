//! Grammars of answers that are more than one JSON value: text up to a call, calls, and thoughts before either.

use serde_json::{Value, json};

use super::split::{CALL, CALL_END, THINK, THINK_END, Thinking};
use super::tool::{Choice, Tool, Tools};
use crate::grammar::{Checked, with_white_space};

/// The grammar of an answer, in the library's notation. `form` is the schema of an answer that is no call; without one, and where no call is
/// required, such an answer is free text.
pub fn grammar(tools: &Tools, form: Option<&Checked>, thinking: Thinking) -> String {
    let callable: Vec<&Tool> = tools.callable().collect();
    let must_call = matches!(tools.choice, Choice::Required | Choice::Named(_));
    let body = match (form, callable.is_empty()) {
        (Some(_), true) => "json",
        (Some(_), false) if !must_call => "json | calls",
        (None, false) if !must_call => return free_or_calls(&callable, tools.parallel, thinking),
        _ => "calls",
    };
    let thought = match thinking {
        Thinking::Never => "",
        Thinking::MayBegin => "(thought NL? NL?)? ",
        Thinking::Begun => "thought NL? NL? ",
    };
    let mut lines = vec![format!("start: {thought}({body})"), thought_rule(thinking)];
    if let Some(form) = form.filter(|_| body.contains("json")) {
        lines.push(format!("json: %json {}", with_white_space(form.at("#"))));
    }
    if body.contains("calls") {
        lines.push(format!("calls: \"{CALL}\" call{}", more(tools.parallel)));
        lines.push(call_rule(&callable));
    }
    lines.push("NL: /\\n/".to_owned());
    lines.join("\n")
}

/// Free text until a call begins; after calls nothing but calls. A call that is only thought of is none: what begins as thoughts is no text
/// before they end.
fn free_or_calls(callable: &[&Tool], parallel: bool, thinking: Thinking) -> String {
    let any = "/(.|\\n)*/";
    let (thought, no_thought) = match thinking {
        Thinking::Never => ("", String::new()),
        Thinking::MayBegin => ("(thought NL? NL?)? ", format!(" & ~/\\s*{THINK}(.|\\n)*/")),
        Thinking::Begun => ("thought ", String::new()),
    };
    [
        format!("start: {thought}(TEXT | text_call call{})", more(parallel)),
        format!("TEXT: {any} & ~/(.|\\n)*{CALL}(.|\\n)*/{no_thought}"),
        format!("TEXT_CALL: /(.|\\n)*{CALL}/{no_thought}"),
        "text_call[lazy]: TEXT_CALL".to_owned(),
        thought_rule(thinking),
        call_rule(callable),
        "NL: /\\n/".to_owned(),
    ]
    .join("\n")
}

fn thought_rule(thinking: Thinking) -> String {
    let end = THINK_END.replace('/', "\\/");
    match thinking {
        Thinking::Never => String::new(),
        Thinking::MayBegin => format!("thought[lazy]: /\\s*{THINK}(.|\\n)*{end}/"),
        Thinking::Begun => format!("thought[lazy]: /(.|\\n)*{end}/"),
    }
}

fn more(parallel: bool) -> String {
    match parallel {
        true => format!(" (NL? \"{CALL}\" call)*"),
        false => String::new(),
    }
}

/// What stands between the markers of a call.
fn call_rule(callable: &[&Tool]) -> String {
    let calls = callable
        .iter()
        .enumerate()
        .map(|(index, tool)| call_schema(index, tool));
    let schema = with_white_space(json!({"anyOf": calls.collect::<Vec<Value>>()}));
    format!("call: NL? %json {schema} NL? \"{CALL_END}\"")
}

/// The name comes before the arguments, as in this schema.
fn call_schema(index: usize, tool: &Tool) -> Value {
    let arguments = tool
        .parameters
        .at(&format!("#/anyOf/{index}/properties/arguments"));
    json!({
        "type": "object",
        "properties": {"name": {"const": tool.name}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": false
    })
}
