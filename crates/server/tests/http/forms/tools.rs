//! Tool calls: whatever a bad model calls has arguments of the tool's schema.

use serde_json::{Value, json};

use crate::client::{Server, said, with};

const CHAT: &str = "/v1/chat/completions";

fn weather() -> Value {
    json!({"type": "object", "properties": {
        "place": {"type": "string", "maxLength": 8}, "days": {"type": "integer", "minimum": 1, "maximum": 9}
    }, "required": ["place", "days"], "additionalProperties": false})
}

fn tools() -> Value {
    let switch = json!({"$defs": {"on": {"type": "boolean"}}, "properties": {"on": {"$ref": "#/$defs/on"}},
        "required": ["on"], "additionalProperties": false});
    json!([
        {"type": "function", "function": {"name": "weather", "description": "The weather", "parameters": weather()}},
        {"type": "function", "function": {"name": "switch", "parameters": switch}}
    ])
}

fn asked(more: Value) -> Value {
    let base = json!({"messages": said("What is the weather?"), "tools": tools(), "max_tokens": 120, "seed": 5, "temperature": 1.2});
    with(&base, more)
}

fn assert_call(name: &Value, arguments: &str) {
    let value: Value = serde_json::from_str(arguments).unwrap_or_else(|error| panic!("{arguments}: {error}"));
    match name.as_str().unwrap() {
        "weather" => assert!(jsonschema::is_valid(&weather(), &value), "{arguments}"),
        "switch" => assert!(
            value["on"].is_boolean() && value.as_object().unwrap().len() == 1,
            "{arguments}"
        ),
        other => panic!("a tool {other}"),
    }
}

#[test]
fn a_required_call_comes_whole_and_streamed() {
    let server = Server::usual();
    let mut num_called = 0;
    for seed in 0..5 {
        let request = asked(json!({"tool_choice": "required", "parallel_tool_calls": false, "seed": seed}));
        let choice = server.ask(CHAT, &request)["choices"][0].clone();
        if choice["finish_reason"] == "length" {
            continue;
        }
        num_called += 1;
        assert_eq!(choice["finish_reason"], "tool_calls");
        assert_eq!(choice["message"]["content"], Value::Null);
        let calls = choice["message"]["tool_calls"].as_array().unwrap();
        assert_eq!(calls.len(), 1);
        let function = &calls[0]["function"];
        assert_call(&function["name"], function["arguments"].as_str().unwrap());
        let events = server.stream(CHAT, &request);
        let deltas: Vec<&Value> = events
            .iter()
            .map(|event| &event["choices"][0]["delta"]["tool_calls"][0])
            .filter(|call| !call.is_null())
            .collect();
        assert_eq!(deltas[0]["function"]["name"], function["name"]);
        assert_eq!(
            (&deltas[0]["index"], &deltas[0]["type"]),
            (&json!(0), &json!("function"))
        );
        let arguments: String = deltas
            .iter()
            .filter_map(|call| call["function"]["arguments"].as_str())
            .collect();
        assert_eq!(arguments, function["arguments"].as_str().unwrap());
        assert_eq!(
            events.last().unwrap()["choices"][0]["finish_reason"],
            "tool_calls"
        );
    }
    assert!(num_called > 2);
}

#[test]
fn a_named_tool_is_the_one_that_is_called() {
    let server = Server::usual();
    let choice = json!({"type": "function", "function": {"name": "switch"}});
    let request = asked(json!({"tool_choice": choice, "parallel_tool_calls": false}));
    let answer = server.ask(CHAT, &request);
    assert_eq!(
        answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"],
        "switch"
    );
    let several = asked(json!({"tool_choice": choice, "max_tokens": 300}));
    let answer = server.ask(CHAT, &several);
    for call in answer["choices"][0]["message"]["tool_calls"].as_array().unwrap() {
        assert_call(
            &call["function"]["name"],
            call["function"]["arguments"].as_str().unwrap(),
        );
    }
}

#[test]
fn a_model_that_may_call_speaks_freely_and_none_is_called_where_none_may() {
    let server = Server::usual();
    let free = server.ask(CHAT, &asked(json!({"temperature": 0, "max_tokens": 20})));
    assert!(
        !free["choices"][0]["message"]["content"]
            .as_str()
            .unwrap()
            .is_empty()
    );
    let plain = json!({"messages": said("What is the weather?"), "max_tokens": 20, "temperature": 0});
    let none = asked(json!({"temperature": 0, "max_tokens": 20, "tool_choice": "none"}));
    let (plain, none) = (server.ask(CHAT, &plain), server.ask(CHAT, &none));
    assert_eq!(plain["choices"], none["choices"]);
    assert_eq!(plain["usage"]["prompt_tokens"], none["usage"]["prompt_tokens"]);
    // A bias towards the first token of the mark makes it call.
    let mark = server.ask("/tokenize", &json!({"prompt": "<", "add_special_tokens": false}));
    let bias = json!({mark["tokens"][0].to_string(): 100});
    let called = server.ask(
        CHAT,
        &asked(json!({"logit_bias": bias, "max_tokens": 12, "temperature": 0})),
    );
    assert!(called["choices"][0]["finish_reason"] == "length");
}

#[test]
fn the_other_interfaces_call_too() {
    let server = Server::usual();
    let tool =
        json!({"type": "function", "name": "switch", "parameters": tools()[1]["function"]["parameters"]});
    let request = json!({"input": "Switch it", "max_output_tokens": 100, "tools": [tool], "tool_choice": "required",
        "parallel_tool_calls": false, "temperature": 0});
    let response = server.ask("/v1/responses", &request);
    let call = &response["output"][0];
    assert_eq!(
        (&call["type"], &response["status"]),
        (&json!("function_call"), &json!("completed"))
    );
    assert_call(&call["name"], call["arguments"].as_str().unwrap());
    let events = server.stream("/v1/responses", &request);
    let mut kinds: Vec<&str> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    kinds.dedup();
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(kinds, expected);
    let done = events
        .iter()
        .find(|event| event["arguments"].is_string())
        .unwrap();
    assert_eq!(done["arguments"], call["arguments"]);
    let deltas = events.iter().filter_map(|event| event["delta"].as_str());
    assert_eq!(deltas.collect::<String>(), call["arguments"].as_str().unwrap());

    let tool = json!({"name": "switch", "input_schema": tools()[1]["function"]["parameters"]});
    let choice = json!({"type": "any", "disable_parallel_tool_use": true});
    let request = json!({"messages": said("Switch it"), "max_tokens": 100, "tools": [tool], "tool_choice": choice, "temperature": 0});
    let message = server.ask("/v1/messages", &request);
    let block = &message["content"][0];
    assert_eq!(
        (&block["type"], &message["stop_reason"]),
        (&json!("tool_use"), &json!("tool_use"))
    );
    assert_call(&block["name"], &block["input"].to_string());
    let events = server.stream("/v1/messages", &request);
    let deltas = events
        .iter()
        .filter_map(|event| event["delta"]["partial_json"].as_str());
    let input: Value = serde_json::from_str(&deltas.collect::<String>()).unwrap();
    assert_eq!(input, block["input"]);
    assert_eq!(events[1]["content_block"]["type"], "tool_use");
}

/// A tool whose arguments are many tokens long.
fn long_call() -> Value {
    let text = "the sea is wide and the wind is strong ".repeat(3);
    let parameters =
        json!({"properties": {"said": {"const": text}}, "required": ["said"], "additionalProperties": false});
    json!({"name": "say", "parameters": parameters})
}

#[test]
fn arguments_come_piece_by_piece() {
    let server = Server::usual();
    let say = json!([{"type": "function", "function": long_call()}]);
    let more =
        json!({"tools": say, "tool_choice": "required", "parallel_tool_calls": false, "temperature": 0});
    let whole = server.ask(CHAT, &asked(more.clone()));
    let pieces = |request: &Value| -> Vec<String> {
        let events = server.stream(CHAT, request);
        let calls = events
            .iter()
            .map(|event| &event["choices"][0]["delta"]["tool_calls"][0]);
        let pieces = calls.filter_map(|call| call["function"]["arguments"].as_str().map(str::to_owned));
        pieces.collect()
    };
    let all = pieces(&asked(more.clone()));
    assert!(all.len() > 8, "{all:?}");
    let function = &whole["choices"][0]["message"]["tool_calls"][0]["function"];
    assert_eq!(all.concat(), function["arguments"].as_str().unwrap());
    // One that is cut off has come as far as it goes; whole, it is no call.
    let cut = asked(with(&more, json!({"max_tokens": 25})));
    let part = pieces(&cut).concat();
    assert!(!part.is_empty() && all.concat().starts_with(&part), "{part}");
    let choice = server.ask(CHAT, &cut)["choices"][0].clone();
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(choice["message"]["tool_calls"], Value::Null);
}

#[test]
fn the_other_interfaces_send_arguments_piece_by_piece() {
    let server = Server::usual();
    let mut tool = long_call();
    tool["type"] = "function".into();
    let request = json!({"input": "Say it", "max_output_tokens": 25, "tools": [tool], "tool_choice": "required", "temperature": 0});
    let events = server.stream("/v1/responses", &request);
    let deltas: Vec<&str> = events
        .iter()
        .filter_map(|event| event["delta"].as_str())
        .collect();
    assert!(deltas.len() > 4, "{events:?}");
    // A call that was cut off says so, streamed and whole.
    let last = &events.last().unwrap()["response"]["output"][0];
    assert_eq!(
        (&last["status"], &last["type"]),
        (&json!("incomplete"), &json!("function_call"))
    );
    assert_eq!(last["arguments"], deltas.concat());
    let whole = server.ask("/v1/responses", &request);
    assert_eq!(whole["output"][0]["arguments"], last["arguments"]);

    let tool = json!({"name": "say", "input_schema": long_call()["parameters"]});
    let request = json!({"messages": said("Say it"), "max_tokens": 25, "tools": [tool], "tool_choice": {"type": "any"}, "temperature": 0});
    let events = server.stream("/v1/messages", &request);
    let pieces: Vec<&str> = events
        .iter()
        .filter_map(|event| event["delta"]["partial_json"].as_str())
        .collect();
    assert_eq!(pieces.concat(), deltas.concat());
    assert!(pieces.len() > 4);
    let kinds: Vec<&Value> = events.iter().rev().take(3).map(|event| &event["type"]).collect();
    assert_eq!(kinds, ["message_stop", "message_delta", "content_block_stop"]);
    assert_eq!(events[events.len() - 2]["delta"]["stop_reason"], "max_tokens");
}

#[test]
fn what_is_no_tool_is_refused() {
    let server = Server::usual();
    let base = json!({"messages": said("Hi"), "max_tokens": 5});
    let function = |function: Value| json!({"tools": [{"type": "function", "function": function}]});
    for (more, words) in [
        (json!({"tools": [{}]}), "tools[0].type: only functions"),
        (
            json!({"tools": [{"type": "web_search"}]}),
            "tools[0].type: only functions",
        ),
        (json!({"tools": [7]}), "tools[0]: expected an object"),
        (
            function(json!({"name": "a b"})),
            "tools[0].function.name: expected",
        ),
        (
            function(json!({"name": "a", "parameters": {"type": "object", "not": {}}})),
            "tools[0].function.parameters: #/not: this keyword is not supported",
        ),
        (
            function(json!({"name": "a", "parameters": {"type": "array"}})),
            "tools[0].function.parameters: #/type: arguments are an object",
        ),
        (
            json!({"tool_choice": "required"}),
            "tool_choice: a call is required",
        ),
        (json!({"tool_choice": "sometimes"}), "tool_choice: expected"),
        (
            json!({"tools": tools(), "tool_choice": {"type": "function", "function": {"name": "x"}}}),
            "tool_choice: there is no tool `x`",
        ),
    ] {
        let (status, message) = server.refused(CHAT, &with(&base, more.clone()));
        assert!(status == 400 && message.contains(words), "{more}: {message}");
    }
}
