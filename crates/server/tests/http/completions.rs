//! POST /v1/completions.

use serde_json::{Value, json};

use crate::client::{ALIAS, Server, with};

const COMPLETIONS: &str = "/v1/completions";

fn beginning() -> Value {
    json!({"model": ALIAS, "prompt": "The old captain", "max_tokens": 12, "temperature": 0})
}

#[test]
fn prompts_may_be_texts_and_tokens_one_or_many() {
    let server = Server::usual();
    let one = server.ask(COMPLETIONS, &beginning());
    let text = one["choices"][0]["text"].clone();
    assert_eq!(
        (&one["object"], &one["usage"]["completion_tokens"]),
        (&json!("text_completion"), &json!(12))
    );
    let tokens = server.ask("/tokenize", &json!({"prompt": "The old captain"}))["tokens"].clone();
    for prompt in [json!(["The old captain"]), tokens.clone(), json!([tokens])] {
        let same = server.ask(COMPLETIONS, &with(&beginning(), json!({"prompt": prompt})));
        assert_eq!(same["choices"][0]["text"], text);
    }
    let many = json!({"prompt": ["The old captain", "Once", "The old captain"], "n": 2, "temperature": 1, "seed": 3});
    let choices = server.ask(COMPLETIONS, &with(&beginning(), many))["choices"].clone();
    let texts: Vec<&Value> = choices
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| &choice["text"])
        .collect();
    assert_eq!(texts.len(), 6);
    assert_eq!((texts[0], texts[1]), (texts[4], texts[5]));
    assert_ne!(texts[0], texts[1]);
    let sixteen = server.ask(COMPLETIONS, &json!({"prompt": "Once", "temperature": 0}));
    assert_eq!(sixteen["usage"]["completion_tokens"], 16);
}

#[test]
fn a_stream_is_the_whole_piece_by_piece() {
    let server = Server::usual();
    let more = json!({"logprobs": 2, "n": 2, "temperature": 1.5, "seed": 9, "max_tokens": 50, "prompt": ["Once", "The sea"]});
    let asked = with(&beginning(), more);
    let whole = server.ask(COMPLETIONS, &asked);
    let events = server.stream(COMPLETIONS, &asked);
    for (index, choice) in whole["choices"].as_array().unwrap().iter().enumerate() {
        let own = events
            .iter()
            .map(|event| &event["choices"][0])
            .filter(|piece| piece["index"] == index);
        let text: String = own.clone().map(|piece| piece["text"].as_str().unwrap()).collect();
        assert_eq!(choice["text"], text);
        for list in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            let entries = own.clone().filter_map(|piece| piece["logprobs"][list].as_array());
            let entries: Vec<Value> = entries.flatten().cloned().collect();
            assert_eq!(choice["logprobs"][list], Value::from(entries), "{list}");
        }
        assert_eq!(
            own.clone().next_back().unwrap()["finish_reason"],
            choice["finish_reason"]
        );
    }
}

#[test]
fn log_probabilities_come_as_lists() {
    let server = Server::usual();
    let answer = server.ask(COMPLETIONS, &with(&beginning(), json!({"logprobs": 3})));
    let lists = &answer["choices"][0]["logprobs"];
    let tokens = lists["tokens"].as_array().unwrap();
    let text: String = tokens.iter().map(|token| token.as_str().unwrap()).collect();
    assert_eq!(answer["choices"][0]["text"], text);
    for (index, token) in tokens.iter().enumerate() {
        assert_eq!(
            lists["top_logprobs"][index][token.as_str().unwrap()],
            lists["token_logprobs"][index]
        );
        let before: usize = tokens[..index]
            .iter()
            .map(|token| token.as_str().unwrap().chars().count())
            .sum();
        assert_eq!(lists["text_offset"][index], before);
    }
    let chosen_only = server.ask(COMPLETIONS, &with(&beginning(), json!({"logprobs": 0})));
    assert_eq!(
        chosen_only["choices"][0]["logprobs"]["top_logprobs"][0],
        json!({})
    );
}

#[test]
fn what_is_wrong_is_named() {
    let server = Server::usual();
    for (more, words) in [
        (json!({"prompt": null}), "prompt: missing"),
        (json!({"prompt": []}), "prompt: expected a text"),
        (json!({"prompt": ""}), ""),
        (
            json!({"prompt": [8192]}),
            "prompt: expected a text, a list of token ids below 8192",
        ),
        (json!({"prompt": [-1]}), "prompt: expected a text"),
        (json!({"prompt": ["a", 1]}), "prompt: expected a text"),
        (json!({"prompt": [[]]}), "the prompt is empty"),
        (json!({"echo": true}), "echo: only false is taken"),
        (json!({"best_of": 2}), "best_of: only 1 is taken"),
        (json!({"suffix": "x"}), "suffix: the model writes on"),
        (
            json!({"logprobs": true}),
            "logprobs: expected a whole number from 0 to 20, got true",
        ),
        (
            json!({"prompt": vec!["a"; 300]}),
            "300 answers were asked for, the server has room for 260",
        ),
    ] {
        let reply = server.post(COMPLETIONS, &with(&beginning(), more.clone()));
        // A tokenizer may begin an empty text with a token of its own.
        if more["prompt"] != "" {
            assert_eq!(reply.status, 400, "{more}: {}", reply.text());
            let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
            assert!(message.contains(words), "{more}: {message}");
        }
        assert!(reply.status < 500);
    }
}
