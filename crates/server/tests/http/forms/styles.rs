//! Models that write calls in a way of their own: Llama 3's and Mistral's, by templates that have what theirs have.

use std::fs;

use serde_json::{Value, json};

use crate::client::{Server, said, with};

const CHAT: &str = "/v1/chat/completions";

const BARE: &str = "{% if tools %}Respond in the format {\"name\": function name, \"parameters\": dictionary of argument name and its value}. \
{% for tool in tools %}{{ tool | tojson }}{% endfor %}\n{% endif %}{% for message in messages %}<|user|>\
{% if message.tool_calls %}{% if message.tool_calls | length != 1 %}{{ raise_exception('one call at once') }}{% endif %}\
{{ message.tool_calls[0].function.arguments | tojson }}{% else %}{{ message.role }}: {{ message.content }}{% endif %}\n\
{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";

const LISTED: &str = "{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}{% endif %}{% for message in messages %}<|user|>\
{% for call in message.tool_calls or [] %}[TOOL_CALLS]{% if call.id | length != 9 %}{{ raise_exception('ids have nine characters') }}{% endif %}\
{{ call.id }}{% endfor %}{{ message.content }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";

/// The bundled model with another template; its token for padding, which has no text, is the mark of calls.
fn server(template: &str) -> (Server, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(crate::client::model_folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let text = fs::read(&path).unwrap();
            let is_json = path.extension().is_some_and(|end| end == "json");
            let text = match is_json {
                true => String::from_utf8(text)
                    .unwrap()
                    .replace("<|pad|>", "[TOOL_CALLS]")
                    .into_bytes(),
                false => text,
            };
            fs::write(folder.path().join(path.file_name().unwrap()), text).unwrap();
        }
    }
    fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    (Server::of(folder.path()), folder)
}

fn asked(more: Value) -> Value {
    let parameters = json!({"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"], "additionalProperties": false});
    let tool = json!({"type": "function", "function": {"name": "switch", "parameters": parameters}});
    let base = json!({"messages": said("Switch it"), "tools": [tool], "max_tokens": 60, "temperature": 0});
    with(&base, more)
}

/// A call comes whole and streamed, and an answer to it can follow.
fn call_and_answer(server: &Server, request: &Value) {
    let choice = server.ask(CHAT, request)["choices"][0].clone();
    assert_eq!(choice["finish_reason"], "tool_calls", "{choice}");
    let calls = choice["message"]["tool_calls"].as_array().unwrap();
    let arguments = calls[0]["function"]["arguments"].as_str().unwrap();
    let value: Value = serde_json::from_str(arguments).unwrap();
    assert!(
        value["on"].is_boolean() && choice["message"]["content"].is_null(),
        "{choice}"
    );
    let events = server.stream(CHAT, request);
    let pieces = events
        .iter()
        .flat_map(|event| {
            event["choices"][0]["delta"]["tool_calls"]
                .as_array()
                .cloned()
                .unwrap_or_default()
        })
        .filter(|call| call["index"] == 0)
        .filter_map(|call| call["function"]["arguments"].as_str().map(str::to_owned));
    assert_eq!(pieces.collect::<String>(), arguments);
    let mut messages = said("Switch it").as_array().unwrap().clone();
    messages.push(choice["message"].clone());
    for call in calls {
        messages.push(json!({"role": "tool", "tool_call_id": call["id"], "content": "done"}));
    }
    server.ask(
        CHAT,
        &with(request, json!({"messages": messages, "tool_choice": "none"})),
    );
}

#[test]
fn a_call_without_a_marker_is_a_whole_answer() {
    let (server, _folder) = server(BARE);
    call_and_answer(&server, &asked(json!({"tool_choice": "required"})));
    // A bias towards its first character makes the model call by itself; a schema beside tools goes another way.
    let brace = server.ask(
        "/tokenize",
        &json!({"prompt": "{\"", "add_special_tokens": false}),
    );
    let bias = json!({"logit_bias": {brace["tokens"][0].to_string(): 100}, "max_tokens": 3});
    let begun = server.stream(CHAT, &asked(bias));
    let texts = begun
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
    assert_eq!(texts.collect::<String>(), "", "what begins a call is no text");
    let format = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": {"const": {"a": 1}}}});
    let told = server.ask(CHAT, &asked(json!({"response_format": format})));
    let message = &told["choices"][0]["message"];
    if let Some(text) = message["content"].as_str().filter(|text| !text.is_empty()) {
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), json!({"a": 1}));
    }
    // Several calls of an earlier turn become turns of their own.
    let call = |id: &str| json!({"id": id, "type": "function", "function": {"name": "switch", "arguments": "{\"on\": true}"}});
    let messages = json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": null, "tool_calls": [call("a"), call("b")]},
        {"role": "tool", "tool_call_id": "a", "content": "x"}, {"role": "tool", "tool_call_id": "b", "content": "y"}]);
    server.ask(CHAT, &asked(json!({"messages": messages, "max_tokens": 1})));
}

#[test]
fn calls_in_a_list_follow_their_token() {
    let (server, _folder) = server(LISTED);
    call_and_answer(
        &server,
        &asked(json!({"tool_choice": "required", "parallel_tool_calls": false})),
    );
    let free = server.ask(CHAT, &asked(json!({"max_tokens": 20})));
    assert!(free["choices"][0]["message"]["tool_calls"].is_null());
    // A bias towards the token makes the model call by itself.
    let bias = json!({"logit_bias": {"1": 100}, "parallel_tool_calls": false});
    let called = server.ask(CHAT, &asked(bias));
    assert_eq!(called["choices"][0]["finish_reason"], "tool_calls", "{called}");
}
