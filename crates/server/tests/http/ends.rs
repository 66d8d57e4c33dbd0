//! How requests and servers end before their time.

use std::io::Read;
use std::time::{Duration, Instant};

use dualgrain::SessionLimits;
use dualgrain_server::{Options, Stage};
use serde_json::{Value, json};

use crate::client::{Server, read_reply, request, said};

const CHAT: &str = "/v1/chat/completions";

/// Four answers that take seconds, one after the other: no end token, nearly the whole context.
fn long(stream: bool) -> Vec<u8> {
    let body = json!({
        "messages": said("Hi"), "max_tokens": 1900, "n": 4, "logit_bias": {"0": -100}, "stream": stream, "temperature": 0
    });
    request(CHAT, "", body.to_string().as_bytes())
}

fn one_at_once(options: Options) -> Server {
    Server::start(SessionLimits::new(1, 2048, 4), options)
}

#[test]
fn a_reader_that_goes_away_ends_its_request_in_every_phase() {
    let server = one_at_once(Options::default());
    let mut abandoned = 0.0;
    let mut gone = |what: &str| {
        abandoned += 1.0;
        server.wait_for("dualgrain:abandoned_total", |count| count >= abandoned);
        server.wait_for_rest();
        assert!(
            server.metric("vllm:generation_tokens_total") < 7000.0 * abandoned,
            "{what} ran to its end"
        );
    };
    for stream in [true, false] {
        let decoding = server.send(&long(stream));
        server.wait_for("vllm:generation_tokens_total", {
            let before = server.metric("vllm:generation_tokens_total");
            move |count| count > before + 5.0
        });
        let queued = server.send(&long(stream));
        server.wait_for("vllm:num_requests_waiting", |waiting| waiting >= 4.0);
        drop(queued);
        server.wait_for("vllm:num_requests_waiting", |waiting| waiting <= 3.0);
        server.wait_for("vllm:num_requests_running", |running| running == 1.0);
        drop(decoding);
        gone("decoding");
        // The queued one was counted before.
        gone("queued");
        // 1,800 tokens of a prompt in steps of 4.
        let prompt = json!({"messages": said(&"sea ".repeat(1800)), "max_tokens": 9, "stream": stream});
        let prompt = server.send(&request(CHAT, "", prompt.to_string().as_bytes()));
        server.wait_for("vllm:num_requests_running", |running| running == 1.0);
        let generated = server.metric("vllm:generation_tokens_total");
        drop(prompt);
        gone("a prompt");
        assert_eq!(
            server.metric("vllm:generation_tokens_total"),
            generated,
            "the prompt ran to its end"
        );
    }
    server.ask(CHAT, &json!({"messages": said("Hi"), "max_tokens": 3}));
}

#[test]
fn a_full_queue_is_told_and_takes_requests_again_later() {
    let options = Options {
        queue: 7,
        ..Options::default()
    };
    let server = one_at_once(options);
    let running = server.send(&long(true));
    server.wait_for("vllm:num_requests_running", |running| running == 1.0);
    let waiting = server.send(&long(true));
    server.wait_for("vllm:num_requests_waiting", |waiting| waiting >= 4.0);
    let refused = server.post(CHAT, &json!({"messages": said("Hi")}));
    let error = refused.json()["error"].clone();
    assert_eq!(
        (refused.status, &error["code"]),
        (429, &json!("queue_full")),
        "{error}"
    );
    assert_eq!(
        (error["type"].as_str(), refused.header("retry-after")),
        (Some("rate_limit_error"), Some("1"))
    );
    let anthropic = server.post("/v1/messages", &json!({"messages": said("Hi"), "max_tokens": 3}));
    assert_eq!(
        (anthropic.status, &anthropic.json()["error"]["type"]),
        (429, &json!("rate_limit_error"))
    );
    drop((running, waiting));
    server.wait_for_rest();
    server.ask(CHAT, &json!({"messages": said("Hi"), "max_tokens": 3}));
}

#[test]
fn a_reader_that_is_too_slow_is_cut_off() {
    let options = Options {
        buffered_pieces: 8,
        patience: Duration::from_secs(5),
        ..Options::default()
    };
    let server = Server::start(SessionLimits::new(8, 2048, 64), options);
    let body = json!({
        "messages": said("Hi"), "max_tokens": 1900, "n": 8, "logprobs": true, "top_logprobs": 20, "stream": true,
        "logit_bias": {"0": -100}
    });
    let mut slow = server.send(&request(CHAT, "", body.to_string().as_bytes()));
    server.wait_for("dualgrain:slow_readers_total", |count| count == 1.0);
    server.wait_for_rest();
    // Its connection is closed as well: the one that asks for the number is left.
    server.wait_for("dualgrain:connections", |open| open == 1.0);
    let reply = read_reply(&mut slow);
    assert!(!reply.complete, "a cut answer looks whole");
}

#[test]
fn a_drain_takes_nothing_new_and_lets_answers_end() {
    let mut server = one_at_once(Options::default());
    let body = json!({"messages": said("Hi"), "max_tokens": 1000, "logit_bias": {"0": -100}, "stream": true});
    let mut running = server.send(&request(CHAT, "", body.to_string().as_bytes()));
    server.wait_for("vllm:num_requests_running", |running| running == 1.0);
    server.tell(Stage::Draining);
    let begun = Instant::now();
    while std::net::TcpStream::connect(server.address).is_ok() {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "connections are still taken"
        );
    }
    let reply = read_reply(&mut running);
    assert!(reply.complete && reply.text().ends_with("data: [DONE]\n\n"));
    let pieces = reply.events();
    assert_eq!(pieces.last().unwrap()["choices"][0]["finish_reason"], "length");
    server.join().unwrap();
}

#[test]
fn what_is_left_after_the_drain_ends_with_an_error() {
    let options = Options {
        drain: Duration::from_millis(50),
        ..Options::default()
    };
    let mut server = one_at_once(options);
    let mut streamed = server.send(&long(true));
    let mut head = [0; 200];
    streamed.read_exact(&mut head).unwrap();
    let mut whole = server.send(&long(false));
    server.wait_for("vllm:num_requests_waiting", |waiting| waiting >= 4.0);
    server.tell(Stage::Draining);
    let mut rest = String::new();
    streamed.read_to_string(&mut rest).unwrap();
    let error = rest
        .lines()
        .find_map(|line| line.strip_prefix("data: {\"error\":"))
        .unwrap();
    assert!(error.contains("the server is shutting down"), "{error}");
    assert!(rest.ends_with("data: [DONE]\n\n\r\n0\r\n\r\n"), "{rest}");
    let reply = read_reply(&mut whole);
    assert_eq!(reply.status, 503);
    let error: Value = reply.json();
    assert_eq!(error["error"]["message"], "the server is shutting down");
    server.join().unwrap();
}

#[test]
fn half_a_request_does_not_hold_the_end_up() {
    let mut server = one_at_once(Options::default());
    let whole = request(CHAT, "", &[b' '; 100]);
    let _held: Vec<_> = [10, whole.len() - 50, whole.len() - 1]
        .map(|len| server.send(&whole[..len]))
        .into();
    server.wait_for("dualgrain:connections", |open| open == 4.0);
    let begun = Instant::now();
    server.tell(Stage::Draining);
    server.join().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}
