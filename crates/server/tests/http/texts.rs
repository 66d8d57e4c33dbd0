//! POST /tokenize, /detokenize, /apply-template.

use serde_json::json;

use crate::client::{Server, said};

#[test]
fn text_becomes_tokens_and_text_again() {
    let server = Server::usual();
    let text = "The sea, naïve 日本 😀";
    let plain = server.ask("/tokenize", &json!({"prompt": text, "add_special_tokens": false}));
    assert_eq!(plain["count"], plain["tokens"].as_array().unwrap().len());
    assert_eq!(plain["max_model_len"], 512);
    let back = server.ask("/detokenize", &json!({"tokens": plain["tokens"]}));
    assert_eq!(back["prompt"], text);
    let (status, message) = server.refused("/detokenize", &json!({"tokens": [1, 8192]}));
    assert!(
        status == 400 && message.contains("token ids below 8192"),
        "{message}"
    );
}

#[test]
fn a_conversation_has_the_tokens_of_its_prompt() {
    let server = Server::usual();
    let prompt = server.ask("/apply-template", &json!({"messages": said("Hi")}))["prompt"].clone();
    assert_eq!(prompt, "<|endoftext|><|user|>Hi\n<|assistant|>");
    let of_text = server.ask(
        "/tokenize",
        &json!({"prompt": prompt, "add_special_tokens": false}),
    );
    let of_messages = server.ask("/tokenize", &json!({"messages": said("Hi")}));
    assert_eq!(of_text["tokens"], of_messages["tokens"]);
    let named = json!({"messages": [{"role": "user", "content": "Hi", "name": "Ann"}]});
    assert_eq!(server.ask("/tokenize", &named), of_messages);
    let answer = json!({"messages": said("Hi"), "max_tokens": 1});
    assert_eq!(
        server.ask("/v1/chat/completions", &answer)["usage"]["prompt_tokens"],
        of_text["count"]
    );
}

#[test]
fn unknown_fields_are_named() {
    let server = Server::usual();
    for (path, words) in [
        ("/tokenize", "promt: unknown field: did you mean `prompt`?"),
        ("/apply-template", "promt: unknown field"),
        ("/detokenize", "tokens: missing"),
    ] {
        let (status, message) =
            server.refused(path, &json!({"prompt": null, "messages": said("Hi"), "promt": 1}));
        assert!(status == 400 && message.contains(words), "{path}: {message}");
    }
    let both = json!({"prompt": "Hi", "messages": said("Hi")});
    assert_eq!(
        server.refused("/tokenize", &both).1,
        "messages: not taken together with the other fields"
    );
}
