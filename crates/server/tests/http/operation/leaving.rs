//! Clients that leave while bytes of theirs are unread.

use dualgrain::SessionLimits;
use dualgrain_server::Options;
use serde_json::json;

use crate::client::{Server, request, said};

#[test]
fn a_byte_behind_the_body_does_not_hide_that_its_client_is_gone() {
    let server = Server::start(SessionLimits::new(1, 2048, 64), Options::default());
    let body = json!({"messages": said("Hi"), "max_tokens": 1900, "n": 16, "logit_bias": {"0": -100}});
    let mut abandoned = 0.0;
    for more in ["", "x", "GET / HTTP/1.1\r\n"] {
        let whole = request("/v1/chat/completions", "", body.to_string().as_bytes());
        let stream = server.send(&[&whole, more.as_bytes()].concat());
        server.wait_for("vllm:num_requests_running", |running| running == 1.0);
        drop(stream);
        abandoned += 1.0;
        server.wait_for("dualgrain:abandoned_total", |count| count == abandoned);
        server.wait_for_rest();
    }
    assert!(server.metric("vllm:generation_tokens_total") < 3.0 * 16.0 * 1900.0);
}
