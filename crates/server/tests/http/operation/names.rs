//! Every answer carries the name of its request.

use serde_json::json;

use crate::client::{Server, request, said};

#[test]
fn every_answer_has_the_name_that_its_request_gave_or_one_of_its_own() {
    let server = Server::usual();
    let chat = json!({"messages": said("Hi"), "max_tokens": 2});
    let streamed = json!({"messages": said("Hi"), "max_tokens": 2, "stream": true});
    let wrong = json!({"messages": 7});
    for (path, body, status) in [
        ("/v1/chat/completions", &chat, 200),
        ("/v1/chat/completions", &streamed, 200),
        ("/v1/messages", &chat, 200),
        ("/v1/messages", &wrong, 400),
        ("/v1/chat/completions", &wrong, 400),
        ("/nothing", &chat, 404),
        ("/health", &chat, 405),
    ] {
        let body = body.to_string();
        let named = server.raw(&request(path, "X-Request-Id: mine-7\r\n", body.as_bytes()));
        assert_eq!(named.status, status, "{path}");
        assert_eq!(named.header("x-request-id"), Some("mine-7"), "{path}");
        assert_eq!(named.header("request-id"), Some("mine-7"), "{path}");
        let strange = "X-Request-Id: a \"strange\" name\r\n";
        let ids = [strange, ""].map(|headers| {
            let made = server.raw(&request(path, headers, body.as_bytes()));
            made.header("x-request-id").unwrap().to_owned()
        });
        assert!(
            ids.iter().all(|id| id.starts_with("req-")) && ids[0] != ids[1],
            "{ids:?}"
        );
    }
}

#[test]
fn a_wrong_host_is_answered_with_a_name_too() {
    let server = Server::usual();
    let reply = server.raw(b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    assert_eq!(reply.status, 403);
    assert!(reply.header("x-request-id").is_some(), "{}", reply.head);
}
