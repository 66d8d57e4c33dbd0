//! Templates that mark thinking and tools: a folder with another template than the bundled model's.

use std::fs;

use serde_json::{Value, json};

use crate::client::{Server, said};

/// Thinks, and has a place for tools, as many templates of others do.
const TEMPLATE: &str = "{% if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools> calls are \
<tool_call>{...}</tool_call>{% endif %}{% for message in messages %}<|user|>{% if message.reasoning_content %}[{{ message.reasoning_content }}]{% endif %}{{ message.content }}\n\
{% for call in message.tool_calls or [] %}<tool_call>{{ call.function.name }}{{ call.function.arguments | tojson }}</tool_call>{% endfor %}\
{% endfor %}{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}";

fn server() -> (Server, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(crate::client::model_folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    fs::write(folder.path().join("chat_template.jinja"), TEMPLATE).unwrap();
    (Server::of(folder.path()), folder)
}

#[test]
fn thoughts_are_set_apart_whole_and_streamed() {
    let (server, _folder) = server();
    // The bundled model never ends its thoughts by itself: all it says is thought. It does not say something to everything.
    let ask = |said_by_user: &&str| {
        let request = json!({"messages": said(said_by_user), "max_tokens": 12, "temperature": 0});
        let message = server.ask("/v1/chat/completions", &request)["choices"][0]["message"].clone();
        assert_eq!(message["content"], "");
        let thought = message["reasoning_content"].as_str()?.to_owned();
        Some((said_by_user.to_string(), request, thought))
    };
    let words = [
        "Hi",
        "Tell me of the sea",
        "The captain",
        "Who are you?",
        "What is that?",
        "Go on",
        "No",
    ];
    let (words, request, thought) = words.iter().find_map(ask).expect("the model says something");
    let events = server.stream("/v1/chat/completions", &request);
    let deltas = events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["reasoning_content"].as_str());
    assert_eq!(deltas.collect::<String>(), thought);
    let whole = server.ask("/v1/messages", &request);
    assert_eq!(whole["content"][0]["thinking"], thought);
    let events = server.stream("/v1/messages", &request);
    let deltas = events
        .iter()
        .filter_map(|event| event["delta"]["thinking"].as_str());
    assert_eq!(deltas.collect::<String>(), thought);
    let response = json!({"input": words, "max_output_tokens": 12, "temperature": 0});
    let response = server.ask("/v1/responses", &response);
    assert_eq!(response["output"][0]["content"][0]["text"], thought);
    assert_eq!(response["output"][0]["type"], "reasoning");
}

#[test]
fn a_schema_is_followed_after_thoughts() {
    let (server, _folder) = server();
    // The end of thoughts, made likely.
    let tokens = server.ask(
        "/tokenize",
        &json!({"prompt": "</think>", "add_special_tokens": false}),
    );
    let bias: serde_json::Map<String, Value> = tokens["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| (token.to_string(), json!(12)))
        .collect();
    let schema = json!({"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": schema}});
    let mut num_ended = 0;
    for seed in 0..12 {
        let request = json!({"messages": said("Hi"), "max_tokens": 200, "seed": seed, "logit_bias": bias, "response_format": format});
        let choice = server.ask("/v1/chat/completions", &request)["choices"][0].clone();
        if choice["finish_reason"] == "stop" {
            let text = choice["message"]["content"].as_str().unwrap();
            let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(value["ok"].is_boolean());
            num_ended += 1;
        }
    }
    println!("{num_ended} of 12 answers ended their thoughts");
}

#[test]
fn a_template_with_a_place_for_tools_is_given_them() {
    let (server, _folder) = server();
    let tool = json!({"name": "f", "input_schema": {"type": "object", "properties": {}}});
    let count = |more: Value| {
        let mut request = json!({"messages": said("Hi")});
        request
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        server.ask("/v1/messages/count_tokens", &request)["input_tokens"]
            .as_u64()
            .unwrap()
    };
    let (without, with_tool) = (count(json!({})), count(json!({"tools": [tool]})));
    let none = count(json!({"tools": [tool], "tool_choice": {"type": "none"}}));
    assert!(with_tool > without + 20, "{without} and {with_tool}");
    assert_eq!(none, without);
}

#[test]
fn templates_see_what_was_thought_before_through_every_interface() {
    let (server, _folder) = server();
    let chat = |thoughts: Value| {
        let said = json!({"role": "assistant", "content": "Yes", "reasoning_content": thoughts});
        let messages = json!([{"role": "user", "content": "Hi"}, said, {"role": "user", "content": "So?"}]);
        server.ask(
            "/v1/chat/completions",
            &json!({"messages": messages, "max_tokens": 1}),
        )["usage"]["prompt_tokens"]
            .clone()
    };
    let (with, without) = (chat(json!("the wind is strong")), chat(Value::Null));
    assert!(with.as_u64() > without.as_u64());
    let answer = json!([{"type": "thinking", "thinking": "the wind is strong", "signature": ""}, {"type": "text", "text": "Yes"}]);
    let messages = json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer}, {"role": "user", "content": "So?"}]);
    let count = server.ask("/v1/messages/count_tokens", &json!({"messages": messages}));
    assert_eq!(count["input_tokens"], with);
    let thought = json!({"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "the wind is strong"}]});
    let input = json!([{"role": "user", "content": "Hi"}, thought, {"role": "assistant", "content": "Yes"}, {"role": "user", "content": "So?"}]);
    let response = server.ask("/v1/responses", &json!({"input": input, "max_output_tokens": 1}));
    assert_eq!(response["usage"]["input_tokens"], with);
}
