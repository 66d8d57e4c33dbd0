//! GET /health, /ready, /metrics, and who is let in.

use std::fs;
use std::time::Duration;

use dualgrain::SessionLimits;
use dualgrain_server::{Keys, Options};
use serde_json::json;

use crate::client::{Server, read_reply, request, said};

#[test]
fn metrics_count_what_happened_under_known_names() {
    let server = Server::usual();
    let asked = json!({"messages": said("Hi"), "max_tokens": 10, "temperature": 0, "n": 2});
    let usage = server.ask("/v1/chat/completions", &asked)["usage"].clone();
    assert_eq!(
        server.metric("vllm:generation_tokens_total"),
        usage["completion_tokens"].as_f64().unwrap()
    );
    assert_eq!(
        server.metric("vllm:prompt_tokens_total"),
        2.0 * usage["prompt_tokens"].as_f64().unwrap()
    );
    assert_eq!(server.metric("vllm:request_success_total"), 2.0);
    assert_eq!(server.metric("vllm:time_to_first_token_seconds_count"), 2.0);
    assert_eq!(server.metric("vllm:inter_token_latency_seconds_count"), 18.0);
    assert_eq!(server.metric("vllm:e2e_request_latency_seconds_count"), 2.0);
    assert_eq!(server.metric("vllm:num_preemptions_total"), 0.0);
    server.wait_for_rest();
    let text = server.get("/metrics").text();
    assert!(
        text.ends_with("# EOF\n") && text.contains("model_name=\"llama-tiny\""),
        "{text}"
    );
    assert!(text.contains("finished_reason=\"length\""), "{text}");
}

#[test]
fn a_server_is_healthy_until_a_step_takes_too_long() {
    let server = Server::usual();
    assert_eq!(
        (server.get("/health").status, server.get("/ready").status),
        (200, 200)
    );
    let options = Options {
        stall: Duration::ZERO,
        ..Options::default()
    };
    let impatient = Server::start(SessionLimits::new(1, 2048, 2048), options);
    assert_eq!(impatient.get("/health").status, 200);
    let body = json!({"messages": said(&"sea ".repeat(1800)), "max_tokens": 1});
    let mut running = impatient.send(&request("/v1/chat/completions", "", body.to_string().as_bytes()));
    let mut statuses = std::iter::repeat_with(|| impatient.get("/health"));
    let unwell = statuses.find(|reply| reply.status == 503).unwrap();
    assert!(
        unwell.text().contains("no step has ended for"),
        "{}",
        unwell.text()
    );
    assert_eq!(read_reply(&mut running).status, 200);
    // The answer comes before the engine's thread has seen that nothing is left to do.
    assert!((0..1000).any(|_| impatient.get("/health").status == 200));
}

#[test]
fn a_key_opens_what_is_guarded_and_nothing_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    fs::write(&file, "sesame\n").unwrap();
    let options = Options {
        keys: Some(Keys::read(&file).unwrap()),
        ..Options::default()
    };
    let server = Server::start(SessionLimits::new(1, 128, 64), options);
    let body = json!({"messages": said("Hi"), "max_tokens": 1}).to_string();
    for path in ["/v1/chat/completions", "/v1/messages", "/tokenize"] {
        let status = |headers: &str| server.raw(&request(path, headers, body.as_bytes())).status;
        for wrong in [
            "",
            "Authorization: Bearer open\r\n",
            "Authorization: sesame\r\n",
            "Authorization: Bearer\r\n",
            "Authorization: B\u{e9}\r\n",
            "x-api-key: sesame2\r\n",
        ] {
            assert_eq!(status(wrong), 401, "{path} {wrong}");
        }
        for right in [
            "Authorization: Bearer sesame\r\n",
            "authorization: bearer sesame\r\n",
            "x-api-key: sesame\r\n",
            "Authorization: Bearer  sesame \r\n",
            "Authorization: Bearer none\r\nx-api-key: sesame\r\n",
            "Authorization: Bearer sesame\r\nx-api-key: none\r\n",
        ] {
            assert_ne!(status(right), 401, "{path} {right}");
        }
    }
    let openai = server.raw(&request("/v1/completions", "", b"{}")).json();
    assert_eq!(openai["error"]["code"], "invalid_api_key");
    let anthropic = server.raw(&request("/v1/messages", "", b"{}")).json();
    assert_eq!(anthropic["error"]["type"], "authentication_error");
    assert_eq!(server.get("/v1/models").status, 401);
    for open in ["/health", "/ready", "/metrics"] {
        assert_eq!(server.get(open).status, 200, "{open}");
    }
}

#[test]
fn other_names_and_other_origins_are_refused_where_there_are_no_keys() {
    let server = Server::usual();
    let get = |head: &str| {
        server.raw(format!("GET /v1/models HTTP/1.1\r\nConnection: close\r\n{head}\r\n").as_bytes())
    };
    let wrong = get("Host: evil.example\r\n");
    assert_eq!(
        (wrong.status, &wrong.json()["error"]["code"]),
        (403, &json!("wrong_host"))
    );
    assert_eq!(get("Host: localhost\r\nOrigin: http://localhost\r\n").status, 200);
    let wrong = get("Host: localhost\r\nOrigin: http://evil.example\r\n");
    assert_eq!(wrong.json()["error"]["code"], "wrong_origin");
}
