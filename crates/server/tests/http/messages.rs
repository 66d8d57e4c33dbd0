//! POST /v1/messages and /v1/messages/count_tokens.

use serde_json::{Value, json};

use crate::client::{ALIAS, Server, said, with};

const MESSAGES: &str = "/v1/messages";

fn question() -> Value {
    json!({"model": ALIAS, "messages": said("Tell me of the sea"), "max_tokens": 20, "temperature": 0})
}

#[test]
fn an_answer_has_the_shape_that_clients_read() {
    let server = Server::usual();
    let answer = server.ask(MESSAGES, &question());
    assert!(answer["id"].as_str().unwrap().starts_with("msg_"));
    assert_eq!(
        (&answer["type"], &answer["role"]),
        (&json!("message"), &json!("assistant"))
    );
    assert_eq!(
        (&answer["stop_reason"], &answer["stop_sequence"]),
        (&json!("max_tokens"), &Value::Null)
    );
    assert_eq!(answer["usage"]["output_tokens"], 20);
    let count = server.ask(
        "/v1/messages/count_tokens",
        &json!({"model": ALIAS, "messages": said("Tell me of the sea")}),
    );
    let whole = with(
        &question(),
        json!({"stream": true, "top_k": 5, "stop_sequences": ["x"]}),
    );
    assert_eq!(server.ask("/v1/messages/count_tokens", &whole), count);
    let usage = &answer["usage"];
    let input = usage["input_tokens"].as_u64().unwrap() + usage["cache_read_input_tokens"].as_u64().unwrap();
    assert_eq!(count["input_tokens"], input);
    let chat = server.ask("/v1/chat/completions", &question());
    assert_eq!(
        answer["content"][0]["text"],
        chat["choices"][0]["message"]["content"]
    );
}

#[test]
fn a_stream_is_the_whole_event_by_event() {
    let server = Server::usual();
    let whole = server.ask(MESSAGES, &question());
    let events = server.stream(MESSAGES, &question());
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds[..2], ["message_start", "content_block_start"]);
    assert_eq!(
        kinds[kinds.len() - 3..],
        ["content_block_stop", "message_delta", "message_stop"]
    );
    let deltas = events.iter().filter_map(|event| event["delta"]["text"].as_str());
    assert_eq!(whole["content"][0]["text"], deltas.collect::<String>());
    let last = &events[events.len() - 2];
    assert_eq!(last["delta"]["stop_reason"], whole["stop_reason"]);
    assert_eq!(last["usage"]["output_tokens"], 20);
}

#[test]
fn the_stop_sequence_that_came_is_named() {
    let server = Server::usual();
    let text = server.ask(MESSAGES, &question())["content"][0]["text"]
        .as_str()
        .unwrap()
        .to_owned();
    let stop: String = text.chars().skip(8).take(5).collect();
    let asked = with(&question(), json!({"stop_sequences": ["no such words", stop]}));
    let answer = server.ask(MESSAGES, &asked);
    assert_eq!(
        (&answer["stop_reason"], &answer["stop_sequence"]),
        (&json!("stop_sequence"), &json!(stop))
    );
    let events = server.stream(MESSAGES, &asked);
    assert_eq!(events[events.len() - 2]["delta"]["stop_sequence"], stop);
}

#[test]
fn a_system_prompt_comes_first() {
    let server = Server::usual();
    let count = |more: Value| {
        let asked = with(&json!({"messages": said("Hi")}), more);
        server.ask("/v1/messages/count_tokens", &asked)["input_tokens"]
            .as_u64()
            .unwrap()
    };
    let parts = json!([{"type": "text", "text": "Be brief", "cache_control": {"type": "ephemeral"}}]);
    assert!(count(json!({"system": "Be brief"})) > count(json!({})));
    assert_eq!(
        count(json!({"system": "Be brief"})),
        count(json!({"system": parts}))
    );
}

#[test]
fn errors_have_the_shape_of_this_interface() {
    let server = Server::usual();
    for (more, status, kind, words) in [
        (
            json!({"max_tokens": null}),
            400,
            "invalid_request_error",
            "max_tokens: missing",
        ),
        (
            json!({"model": "claude"}),
            404,
            "not_found_error",
            "there is no model `claude`",
        ),
        (
            json!({"tools": [{}]}),
            400,
            "invalid_request_error",
            "tools[0].name: missing",
        ),
        (
            json!({"logit_bias": {}}),
            400,
            "invalid_request_error",
            "logit_bias: unknown field",
        ),
        (
            json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}),
            400,
            "invalid_request_error",
            "the last message is the assistant's",
        ),
        (
            json!({"messages": [{"role": "system", "content": "a"}]}),
            400,
            "invalid_request_error",
            "messages[0].role",
        ),
    ] {
        let reply = server.post(MESSAGES, &with(&question(), more.clone()));
        let error = reply.json();
        assert_eq!(
            (reply.status, &error["type"]),
            (status, &json!("error")),
            "{more}: {error}"
        );
        assert_eq!(error["error"]["type"], kind, "{more}");
        assert!(
            error["error"]["message"].as_str().unwrap().contains(words),
            "{more}: {error}"
        );
    }
}
