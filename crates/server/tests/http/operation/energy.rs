//! Joules of answers, from a counter that the test turns.

use std::sync::atomic::{AtomicU64, Ordering};

use dualgrain::SessionLimits;
use dualgrain_server::{Energy, Options};
use serde_json::{Value, json};

use crate::client::{Server, said, with};

/// Half a joule for every look.
fn metered() -> Server {
    let looks = AtomicU64::new(0);
    let counter = Energy::new("a test", move || {
        Some(looks.fetch_add(1, Ordering::Relaxed) as f64 * 0.5)
    });
    let options = Options {
        energy: Some(counter),
        ..Options::default()
    };
    Server::start(SessionLimits::new(4, 512, 128), options)
}

fn energy_j(usage: &Value) -> f64 {
    usage["energy_j"].as_f64().unwrap_or_else(|| panic!("{usage}"))
}

#[test]
fn the_joules_of_all_steps_are_shared_by_the_answers() {
    let server = metered();
    let asked = json!({"messages": said("Hi"), "max_tokens": 10, "logit_bias": {"0": -100}});
    let one = energy_j(&server.ask("/v1/chat/completions", &asked)["usage"]);
    // One step for the prompt, which brings the first token, and one for each of the nine others.
    assert!((one - 5.0).abs() < 1e-4, "{one}");
    let two = energy_j(&server.ask("/v1/chat/completions", &with(&asked, json!({"n": 2})))["usage"]);
    let streamed = with(&asked, json!({"stream_options": {"include_usage": true}}));
    let events = server.stream("/v1/chat/completions", &streamed);
    let streamed = energy_j(&events.last().unwrap()["usage"]);
    let messages =
        energy_j(&server.ask("/v1/messages", &json!({"messages": said("Hi"), "max_tokens": 10}))["usage"]);
    let input = json!({"input": "Hi", "max_output_tokens": 10});
    let responses = energy_j(&server.ask("/v1/responses", &input)["usage"]);
    let sum = one + two + streamed + messages + responses;
    server.wait_for_rest();
    let counted = server.metric("dualgrain:energy_joules_total");
    assert!((sum - counted).abs() < 1e-3, "{sum} of {counted}");
    assert_eq!(server.get("/v1/models").json()["data"][0]["energy"], "a test");
}

#[test]
fn without_a_counter_nothing_is_said_of_joules() {
    let server = Server::usual();
    let usage = &server.ask(
        "/v1/chat/completions",
        &json!({"messages": said("Hi"), "max_tokens": 3}),
    )["usage"];
    assert!(usage.get("energy_j").is_none(), "{usage}");
    assert_eq!(server.metric("dualgrain:energy_joules_total"), 0.0);
    let model = server.get("/v1/models").json()["data"][0].clone();
    assert_eq!(model["energy"], "not measured");
    let machine = &model["machine"];
    assert!(machine["parameters"].as_u64().unwrap() > 100_000, "{machine}");
    assert!(
        machine["device"].as_str().is_some_and(|name| !name.is_empty()),
        "{machine}"
    );
}
