//! docs/reference/metrics.md is what GET /metrics says of itself.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::json;

use crate::committed::{assert_is, read};
use crate::server::Server;

const HEAD: &str = "# Metrics of the server\n\n`GET /metrics` in the OpenMetrics text format; names that begin with `vllm:` mean what they mean in vLLM. \
    [The server](../serve.md#metrics) says how requests are counted. This page is made from a running server.\n\n\
    | name | kind | what it counts |\n|---|---|---|\n";

/// Kind and meaning by name, as samples spell the name.
fn metrics(text: &str) -> BTreeMap<String, (String, String)> {
    let words = |mark: &str| -> BTreeMap<String, String> {
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix(mark)?.split_once(' '));
        lines
            .map(|(name, words)| (name.to_owned(), words.to_owned()))
            .collect()
    };
    let (kinds, helps) = (words("# TYPE "), words("# HELP "));
    let spelled = |name: String, kind: &str| match kind {
        "counter" => name + "_total",
        _ => name,
    };
    let meaning = |name: &String| {
        helps
            .get(name)
            .map_or("", |help| help.trim_end_matches('.'))
            .to_owned()
    };
    kinds
        .into_iter()
        .map(|(name, kind)| {
            let meaning = meaning(&name);
            (spelled(name, &kind), (kind, meaning))
        })
        .collect()
}

#[test]
fn the_page_of_metrics_is_what_a_server_says() {
    let server = Server::start();
    // Counters by reason are there once a request has ended.
    let (status, body) = server.post("/v1/completions", &json!({"prompt": "a", "max_tokens": 1}));
    assert_eq!(status, 200, "{body}");
    let (status, text) = server.get("/metrics");
    assert_eq!(status, 200, "{text}");
    let metrics = metrics(&text);
    assert!(metrics.len() >= 15, "{text}");
    let mut page = HEAD.to_owned();
    for (name, (kind, meaning)) in &metrics {
        let _ = writeln!(page, "| `{name}` | {kind} | {meaning} |");
    }
    assert_is("docs/reference/metrics.md", &page);
    let manual = read("docs/serve.md");
    let absent: Vec<_> = metrics
        .keys()
        .filter(|name| !manual.contains(&format!("`{name}`")))
        .collect();
    assert!(absent.is_empty(), "docs/serve.md does not name {absent:?}");
}
