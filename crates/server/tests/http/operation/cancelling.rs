//! Answers that another request ends.

use std::io::Read;
use std::net::TcpStream;

use dualgrain::SessionLimits;
use dualgrain_server::Options;
use serde_json::{Value, json};

use crate::client::{Reply, Server, read_reply, request, said};

const CHAT: &str = "/v1/chat/completions";

/// An answer that takes seconds, asked for under this name.
fn long(path: &str, name: &str, stream: bool) -> Vec<u8> {
    let body = match path {
        "/v1/responses" => {
            // The model can not end before its time.
            let schema = json!({"type": "array", "items": {"type": "integer"}, "minItems": 600});
            let format = json!({"type": "json_schema", "name": "long", "schema": schema});
            json!({"input": "Hi", "text": {"format": format}, "stream": stream})
        }
        _ => {
            json!({"messages": said("Hi"), "max_tokens": 1900, "n": 8, "logit_bias": {"0": -100}, "stream": stream})
        }
    };
    request(
        path,
        &format!("x-request-id: {name}\r\n"),
        body.to_string().as_bytes(),
    )
}

fn one_at_once() -> Server {
    Server::start(SessionLimits::new(1, 2048, 4), Options::default())
}

fn call(server: &Server, method: &str, path: &str) -> Reply {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    server.raw(head.as_bytes())
}

/// What a stream sends up to its first event, which has the id at `pointer`.
fn first_id(stream: &mut TcpStream, pointer: &str) -> (Vec<u8>, String) {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 512];
        let len = stream.read(&mut piece).unwrap();
        assert!(len > 0, "{}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&piece[..len]);
        let text = String::from_utf8_lossy(&bytes);
        let data = text
            .split_once("data: ")
            .and_then(|(_, data)| data.split_once('\n'));
        if let Some(event) = data.and_then(|(data, _)| serde_json::from_str::<Value>(data).ok()) {
            return (
                bytes.clone(),
                event.pointer(pointer).unwrap().as_str().unwrap().to_owned(),
            );
        }
    }
}

#[test]
fn an_answer_ends_by_its_id_and_says_so() {
    let server = one_at_once();
    for (path, pointer, method, at) in [
        (CHAT, "/id", "DELETE", "/v1/chat/completions/ID"),
        ("/v1/responses", "/response/id", "DELETE", "/v1/responses/ID"),
        ("/v1/responses", "/response/id", "POST", "/v1/responses/ID/cancel"),
    ] {
        let mut stream = server.send(&long(path, "mine", true));
        let (begun, id) = first_id(&mut stream, pointer);
        let ended = call(&server, method, &at.replace("ID", &id));
        assert_eq!(
            (ended.status, &ended.json()["id"]),
            (200, &json!(id)),
            "{}",
            ended.text()
        );
        let reply = read_reply(&mut begun.as_slice().chain(stream));
        let last = reply.events().pop().unwrap();
        let code = last["error"]["code"].as_str().or(last["code"].as_str());
        assert!(reply.complete && code == Some("cancelled"), "{last}");
        server.wait_for_rest();
        let again = call(&server, method, &at.replace("ID", &id));
        assert_eq!(
            (again.status, &again.json()["error"]["code"]),
            (404, &json!("not_found"))
        );
    }
    assert_eq!(server.metric("dualgrain:cancelled_total"), 3.0);
}

#[test]
fn an_answer_ends_by_the_name_of_its_request_running_or_waiting() {
    let server = one_at_once();
    let mut running = server.send(&long(CHAT, "first", false));
    server.wait_for("vllm:num_requests_running", |running| running == 1.0);
    let mut waiting = server.send(&long("/v1/responses", "second", false));
    // Beside the eight choices of the first.
    server.wait_for("vllm:num_requests_waiting", |waiting| waiting > 0.0);
    let ended = |name: &str| {
        (0..2000).any(|_| call(&server, "DELETE", &format!("/v1/responses/{name}")).status == 200)
    };
    assert!(ended("second"));
    let second = read_reply(&mut waiting);
    assert_eq!(
        (second.status, &second.json()["error"]["code"]),
        (410, &json!("cancelled"))
    );
    assert_eq!(server.metric("vllm:num_requests_running"), 1.0);
    assert!(ended("first"));
    assert_eq!(read_reply(&mut running).status, 410);
    server.wait_for_rest();
    server.ask(CHAT, &json!({"messages": said("Hi"), "max_tokens": 3}));
}
