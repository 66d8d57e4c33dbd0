//! GET /openapi.json.

use dualgrain::SessionLimits;
use dualgrain_server::Options;
use serde_json::{Value, json};

use crate::client::{ALIAS, Server};

fn body<'a>(document: &'a Value, path: &str) -> &'a Value {
    &document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
}

#[test]
fn the_description_names_every_path_that_answers_and_the_limits_of_the_model() {
    let server = Server::usual();
    let document = server.get("/openapi.json").json();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 17);
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().unwrap() {
            let path = path.replace("{name}", ALIAS);
            let (reply, expected) = match method.as_str() {
                "get" => (server.get(&path), 200),
                "delete" => {
                    let head =
                        format!("DELETE {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
                    (server.raw(head.as_bytes()), 404)
                }
                _ => {
                    let expected = if operation["requestBody"].is_null() {
                        404
                    } else {
                        400
                    };
                    (server.post(&path, &json!({"nonsense": 1})), expected)
                }
            };
            assert_eq!(reply.status, expected, "{path}");
        }
    }
    let chat = body(&document, "/v1/chat/completions");
    assert_eq!(chat["additionalProperties"], json!({"type": "null"}));
    assert_eq!(chat["required"], json!(["messages"]));
    assert_eq!(chat["properties"]["temperature"]["anyOf"][0]["maximum"], 2.0);
    assert_eq!(chat["properties"]["model"]["anyOf"][0]["enum"], json!([ALIAS]));
    let ids = body(&document, "/detokenize")["properties"]["tokens"]["items"]["maximum"].as_u64();
    let largest = json!({"tokens": [ids.unwrap()]});
    server.ask("/detokenize", &largest);
    server.refused("/detokenize", &json!({"tokens": [ids.unwrap() + 1]}));
}

#[test]
fn unknown_fields_are_described_as_they_are_treated() {
    let options = Options {
        ignore_unknown: true,
        ..Options::default()
    };
    let server = Server::start(SessionLimits::new(1, 128, 64), options);
    let document = server.get("/openapi.json").json();
    assert_eq!(body(&document, "/v1/messages")["additionalProperties"], true);
}
