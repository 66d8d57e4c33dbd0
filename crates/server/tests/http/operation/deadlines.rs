//! How long a request may take.

use std::time::Duration;

use dualgrain::SessionLimits;
use dualgrain_server::Options;
use serde_json::json;

use crate::client::{Server, read_reply, request, said};

const CHAT: &str = "/v1/chat/completions";

/// Answers that take seconds, one after the other.
fn long(headers: &str, stream: bool) -> Vec<u8> {
    let body = json!({
        "messages": said("Hi"), "max_tokens": 1900, "n": 16, "logit_bias": {"0": -100}, "stream": stream
    });
    request(CHAT, headers, body.to_string().as_bytes())
}

fn one_at_once(options: Options) -> Server {
    Server::start(SessionLimits::new(1, 2048, 4), options)
}

#[test]
fn a_request_ends_when_its_time_is_over_running_or_waiting_whole_or_streamed() {
    let server = one_at_once(Options::default());
    let short = "X-Request-Timeout: 0.3\r\n";
    let reply = server.raw(&long(short, false));
    assert_eq!(
        (reply.status, &reply.json()["error"]["code"]),
        (504, &json!("timeout"))
    );
    server.wait_for_rest();
    let reply = server.raw(&long(short, true));
    assert!(reply.status == 200 && reply.complete, "{}", reply.head);
    let (events, text) = (reply.events(), reply.text());
    let last = events.last().unwrap();
    assert_eq!(last["error"]["code"], "timeout", "{last}");
    assert!(events.len() > 1 && text.ends_with("data: [DONE]\n\n"), "{text}");
    server.wait_for_rest();
    let running = server.send(&long("", true));
    server.wait_for("vllm:num_requests_running", |running| running == 1.0);
    let waited = server.raw(&long(short, false));
    assert_eq!(
        (waited.status, server.metric("vllm:num_requests_running")),
        (504, 1.0)
    );
    assert_eq!(server.metric("dualgrain:timeouts_total"), 3.0);
    let anthropic = json!({"messages": said("Hi"), "max_tokens": 1900}).to_string();
    let reply = server.raw(&request("/v1/messages", short, anthropic.as_bytes()));
    assert_eq!(
        (reply.status, &reply.json()["error"]["type"]),
        (504, &json!("timeout_error"))
    );
    drop(running);
    server.wait_for_rest();
    server.ask(CHAT, &json!({"messages": said("Hi"), "max_tokens": 3}));
}

#[test]
fn the_server_s_own_limit_holds_and_nonsense_is_refused() {
    let options = Options {
        timeout: Some(Duration::from_millis(300)),
        ..Options::default()
    };
    let server = one_at_once(options);
    for headers in ["", "X-Request-Timeout: 3600\r\n"] {
        assert_eq!(server.raw(&long(headers, false)).status, 504, "{headers}");
    }
    for wrong in ["soon", "0", "-3", "NaN"] {
        let reply = server.raw(&long(&format!("X-Request-Timeout: {wrong}\r\n"), false));
        assert_eq!(reply.status, 400, "{wrong}");
        assert!(
            reply.text().contains("expected a number of seconds"),
            "{}",
            reply.text()
        );
    }
    // A body that does not come is not waited for either.
    let half = long("", false);
    let mut half = server.send(&half[..half.len() - 10]);
    assert_eq!(read_reply(&mut half).status, 504);
}
