//! What counts where a request does not say how to sample.

use std::fs;

use dualgrain_testing::copy_folder;
use serde_json::{Value, json};

use crate::client::{Server, model_folder, with};

/// An interface, a request without a word on sampling, and where its answer has the text.
fn interfaces() -> [(&'static str, Value, &'static str); 4] {
    let messages = json!([{"role": "user", "content": "Tell me of the sea"}]);
    [
        (
            "/v1/completions",
            json!({"prompt": "The old captain", "max_tokens": 24}),
            "/choices/0/text",
        ),
        (
            "/v1/chat/completions",
            json!({"messages": messages, "max_tokens": 24}),
            "/choices/0/message/content",
        ),
        (
            "/v1/responses",
            json!({"input": "Tell me of the sea", "max_output_tokens": 24}),
            "/output/0/content/0/text",
        ),
        (
            "/v1/messages",
            json!({"messages": messages, "max_tokens": 24}),
            "/content/0/text",
        ),
    ]
}

#[test]
fn generation_config_counts_in_every_interface_and_the_request_before_it() {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&model_folder(), folder.path());
    let file = folder.path().join("generation_config.json");
    fs::write(
        file,
        r#"{"do_sample": true, "temperature": 1.9, "top_k": 1, "eos_token_id": 0}"#,
    )
    .unwrap();
    let (server, usual) = (Server::of(folder.path()), Server::usual());
    for (path, unasked, place) in interfaces() {
        let said = |server: &Server, more: Value| {
            let answer = server.ask(path, &with(&unasked, more));
            answer.pointer(place).unwrap().as_str().unwrap().to_owned()
        };
        let greedy = said(&server, json!({"temperature": 0}));
        assert_eq!(said(&server, json!({})), greedy, "{path}: one token is left");
        assert_ne!(
            said(&server, json!({"top_k": 0})),
            greedy,
            "{path}: all tokens were asked for"
        );
        assert_ne!(said(&usual, json!({})), greedy, "{path}: nothing is said");
    }
    let entry = &server.get("/v1/models").json()["data"][0];
    let told = entry["machine"]["sampling"].as_str().unwrap();
    assert!(told.contains("temperature 1.9, top_k 1"), "{told}");
    let schemas = server.get("/openapi.json").json().to_string();
    assert!(
        schemas.contains(r#""default":1.9"#) && schemas.contains(r#""maximum":2.0,"default":1.9"#),
        "{schemas}"
    );
    assert_eq!(
        usual.get("/v1/models").json()["data"][0]["machine"]["sampling"],
        Value::Null
    );
}
