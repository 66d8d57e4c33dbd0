//! POST /v1/responses.

use serde_json::{Value, json};

use crate::client::{ALIAS, Server, said, with};

const RESPONSES: &str = "/v1/responses";

fn question() -> Value {
    json!({"model": ALIAS, "input": "Tell me of the sea", "max_output_tokens": 20, "temperature": 0})
}

#[test]
fn an_answer_has_the_shape_that_clients_read() {
    let server = Server::usual();
    let answer = server.ask(RESPONSES, &with(&question(), json!({"metadata": {"a": "b"}})));
    assert_eq!(
        (&answer["object"], &answer["status"]),
        (&json!("response"), &json!("incomplete"))
    );
    assert_eq!(answer["incomplete_details"]["reason"], "max_output_tokens");
    assert_eq!(
        (&answer["metadata"]["a"], &answer["store"]),
        (&json!("b"), &json!(false))
    );
    assert_eq!(answer["usage"]["output_tokens"], 20);
    let chat = json!({"messages": said("Tell me of the sea"), "max_tokens": 20, "temperature": 0});
    let chat = server.ask("/v1/chat/completions", &chat);
    assert_eq!(
        answer["output"][0]["content"][0]["text"],
        chat["choices"][0]["message"]["content"]
    );
    assert_eq!(answer["usage"]["input_tokens"], chat["usage"]["prompt_tokens"]);
}

#[test]
fn an_answer_can_be_given_back_as_input() {
    let server = Server::usual();
    let mut input = said("Hi");
    let answer = server.ask(RESPONSES, &with(&question(), json!({"input": input})));
    let list = input.as_array_mut().unwrap();
    list.extend(answer["output"].as_array().unwrap().iter().cloned());
    list.push(
        json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "More"}]}),
    );
    let longer = server.ask(
        RESPONSES,
        &with(&question(), json!({"input": input, "instructions": "Be brief"})),
    );
    assert!(longer["usage"]["input_tokens"].as_u64() > answer["usage"]["input_tokens"].as_u64());
    assert_eq!(longer["instructions"], "Be brief");
}

#[test]
fn a_stream_is_the_whole_event_by_event() {
    let server = Server::usual();
    let whole = server.ask(RESPONSES, &question());
    let events = server.stream(RESPONSES, &question());
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds[..4],
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added"
        ]
    );
    assert_eq!(
        kinds[kinds.len() - 4..],
        [
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.incomplete"
        ]
    );
    let numbers: Vec<u64> = events
        .iter()
        .map(|event| event["sequence_number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (0..events.len() as u64).collect::<Vec<_>>());
    let deltas: String = events
        .iter()
        .filter_map(|event| event["delta"].as_str())
        .collect();
    let text = &whole["output"][0]["content"][0]["text"];
    assert_eq!((text, &events[events.len() - 4]["text"]), (&json!(deltas), text));
    let last = &events.last().unwrap()["response"];
    assert_eq!(last["output"][0]["content"], whole["output"][0]["content"]);
    assert_eq!(last["usage"]["output_tokens"], whole["usage"]["output_tokens"]);
}

#[test]
fn what_has_state_or_is_not_there_is_refused() {
    let server = Server::usual();
    for (more, words) in [
        (json!({"previous_response_id": "resp_1"}), "nothing is stored"),
        (json!({"store": true}), "store: only false is taken"),
        (json!({"tools": [{}]}), "tools[0].type: only functions"),
        (
            json!({"text": {"format": {"type": "json_schema"}}}),
            "text.format.schema: missing",
        ),
        (
            json!({"input": [{"type": "function_call_output"}]}),
            "input[0].call_id: missing",
        ),
        (
            json!({"input": [{"type": "image", "role": "user", "content": "x"}]}),
            "input[0].type: only \"message\"",
        ),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}),
            "input[0].content[0].type: only parts",
        ),
        (
            json!({"input": 5}),
            "input: expected a list of 1 to 1024 messages, got 5",
        ),
        (
            json!({"max_tokens": 5}),
            "max_tokens: unknown field: did you mean",
        ),
    ] {
        let (status, message) = server.refused(RESPONSES, &with(&question(), more.clone()));
        assert!(status == 400 && message.contains(words), "{more}: {message}");
    }
}
