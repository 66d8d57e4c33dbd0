//! Conversations with calls and what tools answered, in all three interfaces: the same turns make the same prompt.

use serde_json::{Value, json};

use crate::client::Server;

#[test]
fn turns_with_calls_make_the_same_prompt_everywhere() {
    let server = Server::usual();
    let call = json!({"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}});
    let openai = json!([
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "seven"},
        {"role": "user", "content": "And?"}
    ]);
    let anthropic = json!([
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "seven"}]},
            {"type": "text", "text": "And?"}
        ]}
    ]);
    let responses = json!([
        {"role": "user", "content": "Hi"},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{\"a\": 1}"},
        {"type": "function_call_output", "call_id": "c1", "output": "seven"},
        {"type": "message", "role": "user", "content": "And?"}
    ]);
    let prompt = server.ask("/apply-template", &json!({"messages": openai}))["prompt"].clone();
    let expected = "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":1}}</tool_call>";
    let prompt = prompt.as_str().unwrap();
    assert!(
        prompt.contains(expected) && prompt.contains("Answer of the tool f:\nseven"),
        "{prompt}"
    );
    let input_tokens = |answer: Value| answer["usage"]["input_tokens"].as_u64().unwrap();
    let chat = json!({"messages": openai, "max_tokens": 8, "temperature": 0});
    let chat = server.ask("/v1/chat/completions", &chat);
    let tokens = chat["usage"]["prompt_tokens"].as_u64().unwrap();
    let count = server.ask("/v1/messages/count_tokens", &json!({"messages": anthropic}));
    assert_eq!(count["input_tokens"], tokens);
    let response = json!({"input": responses, "max_output_tokens": 8, "temperature": 0});
    let response = server.ask("/v1/responses", &response);
    let text = &response["output"][0]["content"][0]["text"];
    assert_eq!(*text, chat["choices"][0]["message"]["content"]);
    assert_eq!(input_tokens(response), tokens);
}
