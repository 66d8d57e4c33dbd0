//! Prompts that do not fit the context.

use serde_json::{Value, json};

use crate::client::{Server, with};

#[test]
fn every_interface_refuses_a_prompt_that_does_not_fit_and_cuts_none() {
    let server = Server::usual();
    let long = "The sea was calm. ".repeat(512);
    let messages = json!([{"role": "user", "content": long}]);
    let ids: Vec<u32> = vec![5; 513];
    let cases: [(&str, Value); 7] = [
        ("/v1/completions", json!({"prompt": long, "max_tokens": 1})),
        (
            "/v1/completions",
            json!({"prompt": ["short", long], "max_tokens": 1}),
        ),
        ("/v1/completions", json!({"prompt": ids, "max_tokens": 1})),
        ("/v1/chat/completions", json!({"messages": messages})),
        ("/v1/responses", json!({"input": long})),
        ("/v1/responses", json!({"input": "Hi", "instructions": long})),
        ("/v1/messages", json!({"messages": messages, "max_tokens": 1})),
    ];
    for (path, body) in cases {
        for stream in [false, true] {
            let (status, message) = server.refused(path, &with(&body, json!({"stream": stream})));
            assert_eq!(status, 400, "{path}: {message}");
            assert!(message.contains("the context holds 512"), "{path}: {message}");
        }
    }
}
