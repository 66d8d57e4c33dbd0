//! Who waits, how much, and who is next.

use std::fs;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use dualgrain::SessionLimits;
use dualgrain_server::{Keys, Options};
use serde_json::{Value, json};

use crate::client::{Server, read_reply, request, said, with};

const CHAT: &str = "/v1/chat/completions";

fn key(name: &str) -> String {
    format!("Authorization: Bearer {name}\r\n")
}

/// An answer that takes seconds, so that others wait behind it.
fn long(headers: &str) -> Vec<u8> {
    let body = json!({"messages": said("Hi"), "max_tokens": 1900, "n": 16, "logit_bias": {"0": -100}, "stream": true});
    request(CHAT, headers, body.to_string().as_bytes())
}

/// Who was answered, in order.
type Order = Arc<Mutex<Vec<&'static str>>>;

/// A request that waits behind others and then notes its name.
fn wait_in_line(
    server: &Server,
    (name, headers): (&'static str, &str),
    more: Value,
    order: &Order,
) -> JoinHandle<()> {
    let before = server.metric("vllm:num_requests_waiting");
    let base = json!({"messages": said(name), "max_tokens": 60, "logit_bias": {"0": -100}});
    let body = with(&base, more).to_string();
    let mut stream = server.send(&request(CHAT, headers, body.as_bytes()));
    let order = Arc::clone(order);
    let thread = std::thread::spawn(move || {
        assert_eq!(read_reply(&mut stream).status, 200);
        order.lock().unwrap().push(name);
    });
    server.wait_for("vllm:num_requests_waiting", |waiting| waiting == before + 1.0);
    thread
}

#[test]
fn tokens_that_wait_are_bounded_and_who_is_too_many_is_told_when_to_come_again() {
    let options = Options {
        queue_tokens: 100,
        ..Options::default()
    };
    let server = Server::start(SessionLimits::new(1, 2048, 64), options);
    let tokens = |count: usize| json!({"prompt": vec![5; count], "max_tokens": 2, "logit_bias": {"0": -100}});
    // Longer than what may wait, but nobody waits.
    server.ask("/v1/completions", &tokens(300));
    let running = server.send(&long(""));
    server.wait_for("vllm:num_requests_running", |running| running == 1.0);
    server.wait_for("dualgrain:waiting_tokens", |tokens| tokens == 0.0);
    let body = tokens(90).to_string();
    let mut waiting = server.send(&request("/v1/completions", "", body.as_bytes()));
    server.wait_for("dualgrain:waiting_tokens", |tokens| tokens == 90.0);
    let refused = server.post("/v1/completions", &tokens(11));
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (429, &json!("queue_full"))
    );
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=600).contains(&seconds), "{seconds}");
    let fits = tokens(10).to_string();
    let mut fits = server.send(&request("/v1/completions", "", fits.as_bytes()));
    server.wait_for("dualgrain:waiting_tokens", |tokens| tokens == 100.0);
    drop(running);
    assert_eq!(
        (read_reply(&mut waiting).status, read_reply(&mut fits).status),
        (200, 200)
    );
    server.wait_for("dualgrain:waiting_tokens", |tokens| tokens == 0.0);
}

#[test]
fn smaller_priorities_are_served_first() {
    let server = Server::start(SessionLimits::new(1, 2048, 64), Options::default());
    let running = server.send(&long(""));
    server.wait_for("vllm:num_requests_running", |running| running == 1.0);
    let order = Order::default();
    let threads: Vec<_> = [("last", 7), ("second", 0), ("third", 0), ("first", -2)]
        .into_iter()
        .map(|(name, priority)| wait_in_line(&server, (name, ""), json!({"priority": priority}), &order))
        .collect();
    drop(running);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(*order.lock().unwrap(), ["first", "second", "third", "last"]);
    let (status, message) = server.refused(CHAT, &json!({"messages": said("Hi"), "priority": "high"}));
    assert!(
        status == 400 && message.starts_with("priority: expected a whole number"),
        "{message}"
    );
}

#[test]
fn a_key_that_floods_the_server_waits_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    fs::write(&file, "flood\nother\n").unwrap();
    let options = Options {
        keys: Some(Keys::read(&file).unwrap()),
        ..Options::default()
    };
    let server = Server::start(SessionLimits::new(1, 2048, 64), options);
    let running = server.send(&long(&key("flood")));
    server.wait_for("vllm:num_requests_running", |running| running == 1.0);
    server.wait_for("vllm:generation_tokens_total", |tokens| tokens > 150.0);
    let order = Order::default();
    let flood = key("flood");
    let first = json!({"priority": -9});
    let mut threads: Vec<_> = ["flood 1", "flood 2", "flood 3"]
        .into_iter()
        .map(|name| wait_in_line(&server, (name, &flood), first.clone(), &order))
        .collect();
    threads.push(wait_in_line(&server, ("other", &key("other")), json!({}), &order));
    drop(running);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(*order.lock().unwrap(), ["other", "flood 1", "flood 2", "flood 3"]);
}
