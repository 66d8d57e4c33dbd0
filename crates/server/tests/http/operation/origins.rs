//! Pages of other origins.

use dualgrain::SessionLimits;
use dualgrain_server::{Keys, Options};

use crate::client::{Reply, Server, request};

const PAGE: &str = "https://page.example";

fn server(origins: &[&str], keys: Option<Keys>) -> Server {
    let options = Options {
        cors_origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
        keys,
        ..Options::default()
    };
    Server::start(SessionLimits::new(1, 128, 64), options)
}

fn question(server: &Server, origin: &str) -> Reply {
    let head = "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close";
    let asks =
        "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization, content-type";
    server.raw(format!("{head}\r\nOrigin: {origin}\r\n{asks}\r\n\r\n").as_bytes())
}

fn allowed(reply: &Reply) -> Option<&str> {
    reply.header("access-control-allow-origin")
}

#[test]
fn no_page_from_elsewhere_is_let_in_unless_its_origin_is_named() {
    let closed = server(&[], None);
    assert_eq!(
        (question(&closed, PAGE).status, allowed(&question(&closed, PAGE))),
        (403, None)
    );
    let server = server(&[PAGE], None);
    let asked = question(&server, PAGE);
    assert_eq!((asked.status, allowed(&asked)), (204, Some(PAGE)));
    let sent = asked.header("access-control-allow-headers").unwrap();
    assert!(
        sent.contains("authorization") && sent.contains("x-api-key"),
        "{sent}"
    );
    assert_eq!(
        asked.header("access-control-allow-methods"),
        Some("GET, POST, DELETE")
    );
    let post = |origin: &str| {
        server.raw(&request(
            "/tokenize",
            &format!("Origin: {origin}\r\n"),
            br#"{"prompt": "a"}"#,
        ))
    };
    let answer = post(PAGE);
    assert_eq!((answer.status, allowed(&answer)), (200, Some(PAGE)));
    assert!(answer.header("vary").unwrap().contains("origin"));
    for other in ["https://page.example.evil", "http://page.example", "null"] {
        assert_eq!(allowed(&question(&server, other)), None, "{other}");
        let refused = post(other);
        assert_eq!((refused.status, allowed(&refused)), (403, None), "{other}");
    }
}

#[test]
fn every_page_may_come_where_that_is_said_and_never_with_keys() {
    assert_eq!(allowed(&question(&server(&["*"], None), PAGE)), Some("*"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    std::fs::write(&file, "sesame\n").unwrap();
    let keyed = server(&["*", PAGE], Some(Keys::read(&file).unwrap()));
    assert_eq!(allowed(&question(&keyed, "https://other.example")), None);
    assert_eq!(allowed(&question(&keyed, PAGE)), Some(PAGE));
    // A refusal for lack of a key can be read by the page that is named.
    let refused = keyed.raw(&request("/tokenize", &format!("Origin: {PAGE}\r\n"), b"{}"));
    assert_eq!((refused.status, allowed(&refused)), (401, Some(PAGE)));
}
