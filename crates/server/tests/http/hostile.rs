//! Bytes that no client should send: an answer below 500 to each, and the server goes on.

use std::io::Write;
use std::net::Shutdown;

use dualgrain::SessionLimits;
use dualgrain_device::cases::Random;
use dualgrain_server::Options;
use dualgrain_testing::{damage, damage_text};
use serde_json::{Value, json};

use crate::client::{Server, request, said, with};

const PATHS: [&str; 7] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/messages",
    "/v1/responses",
    "/tokenize",
    "/detokenize",
    "/apply-template",
];

/// A request that is answered at `path`.
fn good(path: &str) -> Value {
    let sampling = json!({"model": "llama-tiny", "max_tokens": 2, "temperature": 0.5, "top_p": 0.9, "top_k": 4, "stream": false});
    let openai = json!({"stop": ["x"], "seed": 1, "logit_bias": {"5": -1}, "n": 1, "stream_options": null});
    match path {
        "/v1/chat/completions" => with(&with(&sampling, openai), json!({"messages": said("Hi")})),
        "/v1/completions" => with(
            &with(&sampling, openai),
            json!({"prompt": ["Hi", "Ho"], "logprobs": 2}),
        ),
        "/v1/messages" => with(
            &sampling,
            json!({"messages": said("Hi"), "system": "Be brief", "stop_sequences": ["x"]}),
        ),
        "/v1/responses" => {
            json!({"input": said("Hi"), "max_output_tokens": 2, "instructions": "x", "metadata": {"a": "b"}})
        }
        "/tokenize" => json!({"prompt": "Hi", "add_special_tokens": true}),
        "/detokenize" => json!({"tokens": [1, 2, 3, 4]}),
        _ => {
            json!({"messages": [{"role": "system", "content": "Hi"}, {"role": "user", "content": [{"type": "text", "text": "x"}]}]})
        }
    }
}

#[test]
fn bodies_that_are_no_requests_are_refused_in_words() {
    let server = Server::usual();
    let deep = "[".repeat(100_000);
    for body in [
        &b""[..],
        b"{",
        b"[]",
        b"null",
        b"\"text\"",
        b"{\"messages\": \"\xff\xfe\"}",
        b"\xc3\x28",
        b"{\"messages\": [{\"role\": \"user\", \"content\": \"\\ud800\"}]}",
        b"{\"temperature\": 1e999}",
        deep.as_bytes(),
    ] {
        for path in PATHS {
            let reply = server.raw(&request(path, "", body));
            assert_eq!(
                reply.status,
                400,
                "{path} {}: {}",
                String::from_utf8_lossy(&body[..body.len().min(60)]),
                reply.text()
            );
            assert!(!reply.json()["error"]["message"].as_str().unwrap().is_empty());
        }
    }
}

#[test]
fn headers_and_paths_that_are_wrong_have_statuses_of_their_own() {
    let options = Options {
        body_bytes: 1000,
        ..Options::default()
    };
    let server = Server::start(SessionLimits::new(1, 128, 64), options);
    for len in [1001, 3000, 4000] {
        let long = server.raw(&request("/v1/completions", "", &vec![b' '; len]));
        assert_eq!(long.status, 413, "{len}: {}", long.text());
    }
    let chunked = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
                    7d0\r\n".to_vec();
    let chunked = server.raw(&[chunked, vec![b' '; 2000], b"\r\n0\r\n\r\n".to_vec()].concat());
    assert_eq!(chunked.status, 413, "{}", chunked.text());
    let plain = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(server.raw(plain).status, 415);
    assert_eq!(server.get("/v1/chat/completions").status, 405);
    let nothing = server.get("/v2/nothing");
    assert_eq!(
        (nothing.status, &nothing.json()["error"]["code"]),
        (404, &json!("unknown_path"))
    );
    let name = server.get("/v1/models/%ff");
    assert_eq!(
        (name.status, &name.json()["error"]["type"]),
        (400, &json!("invalid_request_error"))
    );
    assert_eq!(server.raw(b"HELO\r\n\r\n").status, 400);
}

#[test]
fn damaged_requests_never_are_the_servers_fault() {
    let server = Server::usual();
    let mut random = Random(7);
    let (mut taken, mut refused) = (0, 0);
    for round in 0..1000 {
        let path = PATHS[round % PATHS.len()];
        let text = good(path).to_string();
        let body = match random.below(2) {
            0 => damage_text(&mut random, &text).into_bytes(),
            _ => damage(&mut random, text.as_bytes()),
        };
        let reply = server.raw(&request(path, "", &body));
        assert!(
            reply.status < 500,
            "{}: {}",
            String::from_utf8_lossy(&body),
            reply.text()
        );
        match reply.status {
            200 => taken += 1,
            _ => refused += 1,
        }
    }
    assert!(taken > 20 && refused > 100, "{taken} taken, {refused} refused");
    server.wait_for_rest();
    assert_eq!(server.metric("dualgrain:failures_total"), 0.0);
}

#[test]
fn connections_that_break_off_leave_nothing_behind() {
    let server = Server::usual();
    let whole = request(
        "/v1/chat/completions",
        "",
        good("/v1/chat/completions").to_string().as_bytes(),
    );
    for len in (0..whole.len()).step_by(7) {
        let mut stream = server.send(&whole[..len]);
        let _ = stream.flush();
        let _ = stream.shutdown(Shutdown::Both);
    }
    server.ask("/v1/chat/completions", &good("/v1/chat/completions"));
    server.wait_for_rest();
    server.wait_for("dualgrain:connections", |open| open == 1.0);
}

#[test]
fn long_bodies_that_never_end_do_not_keep_short_ones_waiting() {
    let server = Server::usual();
    let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{";
    let held: Vec<_> = (0..40).map(|_| server.send(head.as_bytes())).collect();
    server.ask("/v1/chat/completions", &good("/v1/chat/completions"));
    drop(held);
    let long = json!({"prompt": "Hi", "max_tokens": 1, "user": "x".repeat(1_000_000)});
    server.ask("/v1/completions", &long);
}

#[test]
fn who_finds_too_many_long_bodies_is_told_so() {
    let server = Server::usual();
    let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n";
    let begun = [head.as_bytes(), &[b' '; 100_000]].concat();
    let held: Vec<_> = (0..5).map(|_| server.send(&begun)).collect();
    let long = json!({"prompt": "Hi", "max_tokens": 1, "user": "x".repeat(1_000_000)});
    // The last of the five may be refused in place of this one.
    while server.post("/v1/completions", &long).status != 429 {}
    server.ask("/v1/chat/completions", &good("/v1/chat/completions"));
    drop(held);
    while server.post("/v1/completions", &long).status != 200 {}
}

#[test]
fn a_client_that_sends_too_much_still_reads_why_it_is_refused() {
    let server = Server::usual();
    let reply = server.raw(&request("/v1/completions", "", &vec![b' '; 20_000_000]));
    assert!(
        reply.status == 413 && reply.text().contains("more than 8388608 bytes"),
        "{}",
        reply.text()
    );
}
