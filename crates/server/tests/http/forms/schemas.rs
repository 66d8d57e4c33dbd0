//! Whatever a bad model says under a schema is a value of it.

use dualgrain::SessionLimits;
use dualgrain_server::Options;
use serde_json::{Value, json};

use crate::client::{Server, said, with};

const CHAT: &str = "/v1/chat/completions";

fn asked(seed: u64, schema: &Value) -> Value {
    json!({"messages": said("Describe a ship"), "max_tokens": 160, "seed": seed, "temperature": 1.3,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": true}}})
}

fn ship() -> Value {
    json!({"type": "object", "properties": {
        "name": {"type": "string", "maxLength": 10},
        "masts": {"type": "integer", "minimum": 1, "maximum": 5},
        "kind": {"enum": ["brig", "sloop", null]},
        "crew": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{2,6}$"}, "maxItems": 3}
    }, "required": ["name", "masts", "kind", "crew"], "additionalProperties": false})
}

fn schemas() -> Vec<Value> {
    vec![
        ship(),
        json!({"type": "array", "items": {"type": "boolean"}, "minItems": 3, "maxItems": 3}),
        json!({"anyOf": [{"type": "integer", "minimum": -5, "maximum": 5}, {"type": "string", "maxLength": 4}]}),
        json!({"type": "string", "format": "date-time"}),
        json!({"$defs": {"t": {"type": "object", "properties": {"left": {"anyOf": [{"$ref": "#/$defs/t"}, {"type": "null"}]}},
            "required": ["left"], "additionalProperties": false}}, "$ref": "#/$defs/t"}),
    ]
}

/// The text of an answer that ended by itself.
fn ended(answer: &Value) -> Option<String> {
    let choice = &answer["choices"][0];
    let reason = choice["finish_reason"].as_str().unwrap();
    assert!(reason == "stop" || reason == "length", "{reason}");
    let text = choice["message"]["content"].as_str().unwrap();
    (reason == "stop").then(|| text.to_owned())
}

fn assert_valid(schema: &Value, text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let options = jsonschema::options().should_validate_formats(true);
    assert!(
        options.build(schema).unwrap().is_valid(&value),
        "{schema}: {text}"
    );
}

#[test]
fn answers_are_values_of_their_schema_whole_and_streamed() {
    let server = Server::usual();
    for schema in schemas() {
        let mut num_ended = 0;
        for seed in 0..4 {
            let request = asked(seed, &schema);
            let whole = server.ask(CHAT, &request);
            if let Some(text) = ended(&whole) {
                assert_valid(&schema, &text);
                num_ended += 1;
            }
            if seed == 0 {
                let events = server.stream(CHAT, &request);
                let deltas = events
                    .iter()
                    .filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
                let text: String = deltas.collect();
                assert_eq!(text, whole["choices"][0]["message"]["content"].as_str().unwrap());
            }
        }
        assert!(num_ended > 0, "{schema}");
    }
}

#[test]
fn a_constrained_answer_is_the_same_alone_and_among_others() {
    let server = Server::start(SessionLimits::new(8, 512, 128), Options::default());
    let request = with(&asked(7, &ship()), json!({"logprobs": true, "top_logprobs": 2}));
    let alone = server.ask(CHAT, &request)["choices"].clone();
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..20)
            .map(|seed| {
                let server = &server;
                let schema = schemas()[seed as usize % 5].clone();
                let free = json!({"messages": said("Tell me of the sea"), "max_tokens": 30, "seed": seed});
                let other = if seed % 2 == 0 { asked(seed, &schema) } else { free };
                scope.spawn(move || server.ask(CHAT, &other))
            })
            .collect();
        assert_eq!(server.ask(CHAT, &request)["choices"], alone);
        for other in others {
            other.join().unwrap();
        }
    });
}

#[test]
fn any_object_and_every_interface() {
    let server = Server::usual();
    let object = json!({"messages": said("Hi"), "max_tokens": 200, "seed": 3, "response_format": {"type": "json_object"}});
    if let Some(text) = ended(&server.ask(CHAT, &object)) {
        assert_valid(&json!({"type": "object"}), &text);
    }
    let schema = json!({"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "name": "answer", "schema": schema});
    let request =
        json!({"input": "Hi", "max_output_tokens": 40, "temperature": 0, "text": {"format": format}});
    let response = server.ask("/v1/responses", &request);
    assert_eq!(response["status"], "completed");
    assert_eq!(response["text"]["format"], format);
    assert_valid(
        &schema,
        response["output"][0]["content"][0]["text"].as_str().unwrap(),
    );
    let request = json!({"messages": said("Hi"), "max_tokens": 40, "temperature": 0, "output_config": {"format": {"type": "json_schema", "schema": schema}}});
    let message = server.ask("/v1/messages", &request);
    assert_eq!(message["stop_reason"], "end_turn");
    assert_valid(&schema, message["content"][0]["text"].as_str().unwrap());
    // Several choices follow each on its own.
    let many = server.ask(CHAT, &with(&asked(1, &schema), json!({"n": 3})));
    for choice in many["choices"].as_array().unwrap() {
        assert_valid(&schema, choice["message"]["content"].as_str().unwrap());
    }
}

#[test]
fn what_ends_too_early_says_length() {
    let server = Server::usual();
    let answer = server.ask(CHAT, &with(&asked(1, &ship()), json!({"max_tokens": 3})));
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
}

#[test]
fn a_stop_text_cuts_a_value_and_the_answer_says_so() {
    let server = Server::usual();
    let schema = json!({"const": {"first": "sea", "last": "wind"}});
    let whole = server.ask(CHAT, &asked(1, &schema));
    let text = ended(&whole).unwrap();
    let cut = server.ask(CHAT, &with(&asked(1, &schema), json!({"stop": "wind"})));
    let choice = &cut["choices"][0];
    assert_eq!(choice["finish_reason"], "stop");
    let (before, _) = text.split_once("wind").unwrap();
    assert_eq!(choice["message"]["content"], before);
    let request = json!({"messages": said("Hi"), "max_tokens": 60, "stop_sequences": ["sea", "wind"],
        "output_config": {"format": {"type": "json_schema", "schema": schema}}});
    let message = server.ask("/v1/messages", &request);
    assert_eq!(
        (&message["stop_reason"], &message["stop_sequence"]),
        (&json!("stop_sequence"), &json!("sea"))
    );
    server.wait_for_rest();
}

#[test]
fn a_schema_beside_json_object_is_followed_too() {
    let server = Server::usual();
    let format = |schema: Value| json!({"response_format": {"type": "json_object", "schema": schema}});
    let answer = server.ask(
        CHAT,
        &with(&asked(1, &ship()), format(json!({"const": {"a": 1}}))),
    );
    let value: Value = serde_json::from_str(&ended(&answer).unwrap()).unwrap();
    assert_eq!(value, json!({"a": 1}));
    let wrong = with(&asked(1, &ship()), format(json!({"not": {}})));
    let (status, message) = server.refused(CHAT, &wrong);
    assert!(
        status == 400 && message.contains("response_format.schema: #/not"),
        "{message}"
    );
}

#[test]
fn what_is_not_followed_is_refused_with_its_path() {
    let server = Server::usual();
    let format = |format: Value| json!({"messages": said("Hi"), "response_format": format});
    let schema = |schema: Value| {
        format(json!({"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}))
    };
    for (request, words) in [
        (
            schema(json!({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": true}}})),
            "response_format.json_schema.schema: #/properties/a/uniqueItems: this keyword is not supported",
        ),
        (
            schema(json!({"type": "string", "pattern": "(?<!a)b"})),
            "response_format.json_schema.schema: #",
        ),
        (
            schema(json!(7)),
            "response_format.json_schema.schema: #: expected a JSON Schema",
        ),
        (
            format(json!({"type": "json_schema", "json_schema": {"name": "a"}})),
            "response_format.json_schema.schema: missing",
        ),
        (
            format(json!({"type": "grammar"})),
            "response_format.type: expected one of text, json_object, json_schema",
        ),
    ] {
        let (status, message) = server.refused(CHAT, &request);
        assert!(status == 400 && message.contains(words), "{request}: {message}");
    }
    server.wait_for_rest();
}
