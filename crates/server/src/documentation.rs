//! The part of the manual that the code knows best.

use crate::parameters::{Api, Rule, parameters};

/// Tables of every interface's parameters, in Markdown.
pub fn parameter_tables() -> String {
    let apis = [
        (Api::Chat, "POST /v1/chat/completions"),
        (Api::Completions, "POST /v1/completions"),
        (Api::Responses, "POST /v1/responses"),
        (Api::Messages, "POST /v1/messages"),
    ];
    let tables = apis.map(|(api, title)| format!("### {title}\n\n{}", table(api)));
    tables.join("\n")
}

fn table(api: Api) -> String {
    let rows = parameters(api).map(|parameter| {
        let what = match parameter.rule {
            Rule::Used => parameter.what.to_owned(),
            Rule::Ignored => format!("taken and ignored: {}", parameter.what),
            Rule::Refused => format!("refused: {}", parameter.what),
            Rule::Only(value) => format!("only `{value}` is taken: {}", parameter.what),
        };
        format!("| `{}` | {what} |\n", parameter.name)
    });
    let rows: String = rows.collect();
    format!("| parameter | what it does |\n|---|---|\n{rows}")
}
