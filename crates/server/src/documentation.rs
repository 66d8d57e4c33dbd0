//! The part of the manual that the code knows best.

use crate::parameters::{Api, Rule, parameters};
use crate::serving::{DOCUMENT, PATHS};

const PAGE: &str = "a page to chat with the model, in any browser; it loads nothing from elsewhere";

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

/// A table of all paths, in Markdown.
pub fn path_table() -> String {
    let endpoints = PATHS.iter().map(|(endpoint, _)| endpoint).chain([&DOCUMENT]);
    let rows = endpoints.map(|endpoint| {
        let path = endpoint.path.replace("{*name}", "NAME").replace("{name}", "ID");
        format!("| {} {path} | {} |\n", endpoint.method(), endpoint.what)
    });
    let rows: String = rows.collect();
    format!("| path | what it does |\n|---|---|\n{rows}| GET / | {PAGE} |\n")
}
