//! Grammars of answers that are more than one JSON value: text up to a call, calls, and thoughts before either.

use serde_json::{Value, json};

use super::split::{CALL, CALL_END, THINK, THINK_END, Thinking};
use super::style::Style;
use super::tool::{Choice, Tool, Tools};
use crate::grammar::{Checked, with_white_space};

/// The grammar of an answer, in the library's notation. `form` is the schema of an answer that is no call; without one, and where no call is
/// required, such an answer is free text.
pub fn grammar(tools: &Tools, form: Option<&Checked>, thinking: Thinking, style: Style) -> String {
    let callable: Vec<&Tool> = tools.callable().collect();
    let must_call = matches!(tools.choice, Choice::Required | Choice::Named(_));
    let body = match (form, callable.is_empty()) {
        (Some(_), true) => "json",
        (Some(_), false) if !must_call => "json | calls",
        (None, false) if !must_call => return free_or_calls(&callable, tools.parallel, thinking, style),
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
        lines.extend(call_rules(&callable, tools.parallel, style));
    }
    lines.push("NL: /\\n/".to_owned());
    lines.join("\n")
}

/// Free text until a call begins; after calls nothing but calls. A call that is only thought of is none: what begins as thoughts is no text
/// before they end.
fn free_or_calls(callable: &[&Tool], parallel: bool, thinking: Thinking, style: Style) -> String {
    let any = "/(.|\\n)*/";
    let (thought, no_thought) = match thinking {
        Thinking::Never => ("", String::new()),
        Thinking::MayBegin => ("(thought NL? NL?)? ", format!(" & ~/\\s*{THINK}(.|\\n)*/")),
        Thinking::Begun => ("thought ", String::new()),
    };
    // What begins as a call without a marker is one.
    let no_call = match style {
        Style::Bare => "~/\\s*\\{(.|\\n)*/",
        Style::Listed(_) => "~/\\s*\\[\\s*\\{(.|\\n)*/",
        Style::Told | Style::Marked => "",
    };
    if !no_call.is_empty() {
        let mut lines = vec![
            format!("start: {thought}(TEXT | NL? NL? calls)"),
            format!("TEXT: {any} & {no_call}{no_thought}"),
            thought_rule(thinking),
            "NL: /\\n/".to_owned(),
        ];
        lines.extend(call_rules(callable, parallel, style));
        return lines.join("\n");
    }
    [
        format!("start: {thought}(TEXT | text_call call{})", more(parallel)),
        format!("TEXT: {any} & ~/(.|\\n)*{CALL}(.|\\n)*/{no_thought}"),
        format!("TEXT_CALL: /(.|\\n)*{CALL}/{no_thought}"),
        "text_call[lazy]: TEXT_CALL".to_owned(),
        thought_rule(thinking),
        call_rule(callable, style),
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

/// An answer of calls.
fn call_rules(callable: &[&Tool], parallel: bool, style: Style) -> Vec<String> {
    let calls = match style {
        Style::Told | Style::Marked => format!("calls: \"{CALL}\" call{}", more(parallel)),
        Style::Bare => "calls: call".to_owned(),
        Style::Listed(token) if parallel => {
            format!("calls: <[{token}]> \"[\" call (SEPARATOR call)* \"]\"\nSEPARATOR: /, ?/")
        }
        Style::Listed(token) => format!("calls: <[{token}]> \"[\" call \"]\""),
    };
    vec![calls, call_rule(callable, style)]
}

/// A call, with the marker behind it where it has one.
fn call_rule(callable: &[&Tool], style: Style) -> String {
    let calls = callable
        .iter()
        .enumerate()
        .map(|(index, tool)| call_schema(index, tool, style.arguments()));
    let schema = with_white_space(json!({"anyOf": calls.collect::<Vec<Value>>()}));
    match style {
        Style::Told | Style::Marked => format!("call: NL? %json {schema} NL? \"{CALL_END}\""),
        Style::Bare | Style::Listed(_) => format!("call: %json {schema}"),
    }
}

/// The name comes before the arguments, as in this schema.
fn call_schema(index: usize, tool: &Tool, arguments: &str) -> Value {
    let schema = tool
        .parameters
        .at(&format!("#/anyOf/{index}/properties/{arguments}"));
    json!({
        "type": "object",
        "properties": {"name": {"const": tool.name}, arguments: schema},
        "required": ["name", arguments],
        "additionalProperties": false
    })
}
