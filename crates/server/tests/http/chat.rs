//! POST /v1/chat/completions and /v1/models.

use dualgrain_server::Options;
use serde_json::{Value, json};

use crate::client::{ALIAS, Server, said, with};

const CHAT: &str = "/v1/chat/completions";

fn question() -> Value {
    json!({"model": ALIAS, "messages": said("Tell me of the sea"), "max_tokens": 24, "seed": 5, "temperature": 0.9})
}

/// Content, log-probabilities and end of each choice of a stream.
pub fn joined(events: &[Value], num_choices: usize) -> Vec<(String, Vec<Value>, String)> {
    let mut choices = vec![(String::new(), Vec::new(), String::new()); num_choices];
    for choice in events
        .iter()
        .flat_map(|event| event["choices"].as_array().unwrap())
    {
        let (text, logprobs, end) = &mut choices[choice["index"].as_u64().unwrap() as usize];
        assert!(end.is_empty(), "something follows the end: {choice}");
        *text += choice["delta"]["content"].as_str().unwrap_or_default();
        let entries = choice["logprobs"]["content"].as_array();
        logprobs.extend(entries.into_iter().flatten().cloned());
        *end += choice["finish_reason"].as_str().unwrap_or_default();
    }
    choices
}

#[test]
fn an_answer_has_the_shape_that_clients_read() {
    let server = Server::usual();
    let answer = server.ask(CHAT, &question());
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!(
        (&answer["object"], &answer["model"]),
        (&json!("chat.completion"), &json!(ALIAS))
    );
    let choice = &answer["choices"][0];
    assert_eq!(
        (&choice["message"]["role"], &choice["index"]),
        (&json!("assistant"), &json!(0))
    );
    assert!(!choice["message"]["content"].as_str().unwrap().is_empty());
    let usage = &answer["usage"];
    let total = usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap();
    assert_eq!(usage["total_tokens"], total);
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(usage["completion_tokens"], 24);
}

#[test]
fn a_stream_is_the_whole_piece_by_piece() {
    let server = Server::usual();
    for more in [
        json!({}),
        json!({"n": 3, "logprobs": true, "top_logprobs": 4}),
        json!({"stop": ["e", " the"], "max_tokens": 60}),
        // Bytes at random: characters that are split, and some that never come to be.
        json!({"temperature": 2.0, "max_tokens": 200, "seed": 11, "n": 4}),
    ] {
        let asked = with(&question(), more);
        let whole = server.ask(CHAT, &asked);
        let with_usage = with(&asked, json!({"stream_options": {"include_usage": true}}));
        let mut events = server.stream(CHAT, &with(&with_usage, json!({"stream": true})));
        let last = events.pop().unwrap();
        assert_eq!(
            last["usage"]["completion_tokens"],
            whole["usage"]["completion_tokens"]
        );
        assert_eq!(last["choices"], json!([]));
        let choices = whole["choices"].as_array().unwrap();
        for (choice, (text, logprobs, end)) in choices.iter().zip(joined(&events, choices.len())) {
            assert_eq!(choice["message"]["content"], text);
            assert_eq!(choice["finish_reason"], end);
            let told = choice["logprobs"]["content"].as_array().cloned();
            assert_eq!(told.unwrap_or_default(), logprobs);
        }
    }
}

#[test]
fn the_first_chunk_names_the_role_and_usage_is_null_until_the_last() {
    let server = Server::usual();
    let asked = with(
        &question(),
        json!({"stream": true, "stream_options": {"include_usage": true}}),
    );
    let events = server.stream(CHAT, &asked);
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(events[0]["object"], "chat.completion.chunk");
    let (last, others) = events.split_last().unwrap();
    assert!(
        others
            .iter()
            .all(|event| event["usage"].is_null() && event["id"] == last["id"])
    );
    let plain = server.stream(CHAT, &question());
    assert!(plain.iter().all(|event| event.get("usage").is_none()));
}

#[test]
fn seeds_reproduce_and_choices_draw_with_the_seeds_that_follow() {
    let server = Server::usual();
    let text = |answer: &Value, index: usize| answer["choices"][index]["message"]["content"].clone();
    let three = server.ask(CHAT, &with(&question(), json!({"n": 3})));
    for index in 0..3 {
        let alone = server.ask(CHAT, &with(&question(), json!({"seed": 5 + index})));
        assert_eq!(text(&three, index), text(&alone, 0));
    }
    assert_ne!(text(&three, 0), text(&three, 1));
    let mut unseeded = question();
    unseeded.as_object_mut().unwrap().shift_remove("seed");
    assert_ne!(
        text(&server.ask(CHAT, &unseeded), 0),
        text(&server.ask(CHAT, &unseeded), 0)
    );
    let negative = with(&question(), json!({"seed": -1}));
    assert_eq!(
        text(&server.ask(CHAT, &negative), 0),
        text(&server.ask(CHAT, &negative), 0)
    );
}

#[test]
fn log_probabilities_are_those_of_the_chosen_and_the_most_likely_tokens() {
    let server = Server::usual();
    let asked = with(
        &question(),
        json!({"temperature": 0, "logprobs": true, "top_logprobs": 3, "max_tokens": 8}),
    );
    let answer = server.ask(CHAT, &asked);
    let entries = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(entries.len(), 8);
    let mut text = String::new();
    for entry in entries {
        let top = entry["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        assert_eq!(
            (&top[0]["token"], &top[0]["logprob"]),
            (&entry["token"], &entry["logprob"])
        );
        text += entry["token"].as_str().unwrap();
    }
    assert_eq!(answer["choices"][0]["message"]["content"], text);
}

#[test]
fn parameters_do_what_they_say() {
    let server = Server::usual();
    let greedy = with(&question(), json!({"temperature": 0, "logprobs": true}));
    let first = |more: Value| {
        let answer = server.ask(CHAT, &with(&greedy, more));
        answer["choices"][0]["logprobs"]["content"][0]["token"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let plain = first(json!({}));
    assert_eq!(first(json!({"temperature": 1.7, "top_k": 1})), plain);
    assert_eq!(first(json!({"temperature": 1.7, "top_p": 1e-6})), plain);
    assert_eq!(first(json!({"temperature": 1.7, "min_p": 1.0})), plain);
    let ids = server.ask(
        "/tokenize",
        &json!({"prompt": plain, "add_special_tokens": false}),
    );
    let id = ids["tokens"][0].as_u64().unwrap().to_string();
    assert_ne!(first(json!({"logit_bias": {id: -100}})), plain);
    let text =
        |more: Value| server.ask(CHAT, &with(&greedy, more))["choices"][0]["message"]["content"].clone();
    let long = json!({"max_tokens": 48});
    for penalty in ["frequency_penalty", "presence_penalty", "repetition_penalty"] {
        assert_ne!(
            text(with(&long, json!({penalty: 2.0}))),
            text(long.clone()),
            "{penalty}"
        );
    }
    assert_eq!(
        server.ask(
            CHAT,
            &with(&greedy, json!({"max_completion_tokens": 3, "max_tokens": null}))
        )["usage"]["completion_tokens"],
        3
    );
}

#[test]
fn a_stop_text_ends_the_answer_and_is_not_in_it() {
    let server = Server::usual();
    let greedy = with(&question(), json!({"temperature": 0, "max_tokens": 40}));
    let text = |answer: Value| {
        answer["choices"][0]["message"]["content"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let whole = text(server.ask(CHAT, &greedy));
    // It begins and ends inside of words.
    let stop: String = whole.chars().skip(9).take(7).collect();
    let answer = server.ask(CHAT, &with(&greedy, json!({"stop": stop})));
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(text(answer), whole[..whole.find(&stop).unwrap()]);
}

#[test]
fn content_may_come_in_parts_and_roles_have_older_names() {
    let server = Server::usual();
    let prompt =
        |messages: Value| server.ask("/apply-template", &json!({"messages": messages}))["prompt"].clone();
    let parts =
        json!([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]);
    assert_eq!(prompt(parts), prompt(said("a\nb")));
    let spoken =
        |role: &str| json!([{"role": role, "content": "Be brief"}, {"role": "user", "content": "Hi"}]);
    assert_eq!(prompt(spoken("developer")), prompt(spoken("system")));
}

#[test]
fn equal_prompts_run_once_and_the_cache_is_reported() {
    let server = Server::usual();
    let asked = with(
        &question(),
        json!({"messages": said(&"the long story of the sea ".repeat(40))}),
    );
    let cold = server.ask(CHAT, &asked);
    let warm = server.ask(CHAT, &asked);
    let cached = |answer: &Value| {
        answer["usage"]["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap()
    };
    assert_eq!(cached(&cold), 0);
    assert!(cached(&warm) >= 128, "{warm}");
    assert_eq!(cold["choices"], warm["choices"]);
    let hits = server.metric("vllm:prefix_cache_hits_total");
    let other = with(
        &asked,
        json!({"messages": said(&"quite another tale of the land ".repeat(40)), "n": 4}),
    );
    let prompt_tokens = server.ask(CHAT, &other)["usage"]["prompt_tokens"]
        .as_u64()
        .unwrap() as f64;
    let shared = server.metric("vllm:prefix_cache_hits_total") - hits;
    assert!(
        shared >= 3.0 * (prompt_tokens - 64.0),
        "{shared} of 3 x {prompt_tokens} tokens were shared"
    );
}

#[test]
fn the_one_model_is_listed_and_others_are_not_there() {
    let server = Server::usual();
    let list = server.get("/v1/models").json();
    assert_eq!(
        (&list["object"], &list["data"][0]["id"]),
        (&json!("list"), &json!(ALIAS))
    );
    assert_eq!(list["data"][0]["max_model_len"], 512);
    assert_eq!(server.get("/v1/models/llama-tiny").json(), list["data"][0]);
    for reply in [
        server.get("/v1/models/some/other"),
        server.post(CHAT, &with(&question(), json!({"model": "gpt-5"}))),
    ] {
        let error = reply.json()["error"].clone();
        assert_eq!(
            (reply.status, &error["code"]),
            (404, &json!("model_not_found")),
            "{error}"
        );
        assert_eq!(error["param"], "model");
    }
    let mut nameless = question();
    nameless.as_object_mut().unwrap().shift_remove("model");
    server.ask(CHAT, &nameless);
}

#[test]
fn what_is_wrong_is_named_with_what_was_expected() {
    let server = Server::usual();
    for (more, words) in [
        (
            json!({"temperature": "hot"}),
            "temperature: expected a number from 0 to 2, got \"hot\"",
        ),
        (
            json!({"temperature": 2.5}),
            "temperature: expected a number from 0 to 2, got 2.5",
        ),
        (json!({"top_p": 0}), "top_p: expected a number"),
        (json!({"n": 0}), "n: expected a whole number from 1 to 128, got 0"),
        (json!({"n": 1.5}), "n: expected a whole number"),
        (
            json!({"max_tokens": 0}),
            "max_tokens: expected a whole number from 1",
        ),
        (
            json!({"max_completion_tokens": 4}),
            "max_completion_tokens: given beside `max_tokens`",
        ),
        (json!({"stop": ""}), "stop: expected texts of 1 to"),
        (json!({"stop": ["a", 7]}), "stop: expected texts of 1 to"),
        (
            json!({"stop": vec!["a"; 17]}),
            "stop: expected a text or up to 16 texts",
        ),
        (
            json!({"logit_bias": {"9999": 1}}),
            "logit_bias: expected an object",
        ),
        (
            json!({"logit_bias": {"7": 1, "07": 1}}),
            "logit_bias: expected an object",
        ),
        (
            json!({"logit_bias": {"7": 101}}),
            "logit_bias: expected an object",
        ),
        (json!({"seed": 1.5}), "seed: expected a whole number, got 1.5"),
        (
            json!({"top_logprobs": 2}),
            "top_logprobs: only taken with \"logprobs\": true",
        ),
        (
            json!({"logprobs": true, "top_logprobs": 21}),
            "top_logprobs: expected a whole number from 0 to 20",
        ),
        (json!({"stream_options": {}}), "stream_options: only taken with"),
        (
            json!({"stream": true, "stream_options": {"usage": true}}),
            "stream_options.usage: unknown field",
        ),
        (
            json!({"messages": []}),
            "messages: expected a list of 1 to 1024 messages",
        ),
        (json!({"messages": null}), "messages: missing"),
        (
            json!({"messages": [{"role": "robot", "content": "x"}]}),
            "messages[0].role: expected one of",
        ),
        (
            json!({"messages": [{"role": "user"}]}),
            "messages[0].content: missing",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
            "messages[0].content[0].type: only parts of type \"text\"",
        ),
        (
            json!({"messages": [{"role": "user", "content": "x", "contents": 1}]}),
            "messages[0].contents: unknown field: did you mean `content`?",
        ),
        (
            json!({"messages": said(&"sea ".repeat(600))}),
            "but the context holds 512",
        ),
        (json!({"max_tokens": 600}), "but the context holds 512"),
        (json!({"tools": [{}]}), "tools[0].type: only functions"),
        (
            json!({"response_format": {"type": "xml"}}),
            "response_format.type: expected one of text, json_object, json_schema",
        ),
        (
            json!({"temprature": 1}),
            "temprature: unknown field: did you mean `temperature`?",
        ),
        (json!({"zzz": 1}), "zzz: unknown field: known are model, messages"),
    ] {
        let (status, message) = server.refused(CHAT, &with(&question(), more.clone()));
        assert_eq!(status, 400, "{more}: {message}");
        assert!(message.contains(words), "{more}: {message}");
    }
    assert_eq!(server.metric("vllm:num_requests_running"), 0.0);
}

#[test]
fn unknown_fields_can_be_passed_over_but_not_what_is_unsupported() {
    let options = Options {
        ignore_unknown: true,
        ..Options::default()
    };
    let server = Server::start(dualgrain::SessionLimits::new(2, 256, 64), options);
    let asked = with(
        &question(),
        json!({"zzz": 1, "user": "me", "tool_choice": "none", "messages": [{"role": "user", "content": "Hi", "name": "x"}]}),
    );
    server.ask(CHAT, &asked);
    assert_eq!(server.refused(CHAT, &with(&asked, json!({"tools": [1]}))).0, 400);
    let (status, message) = server.refused(CHAT, &with(&asked, json!({"guided_json": {}})));
    assert!(status == 400 && message.contains("not supported"), "{message}");
}
