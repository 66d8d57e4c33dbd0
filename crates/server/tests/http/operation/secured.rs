//! HTTPS, and certificates that are not taken.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualgrain::SessionLimits;
use dualgrain_server::{Options, Tls};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::json;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::client::{Reply, Server, read_reply, request, said};

/// Files of a new certificate for localhost and its key.
fn certificate(folder: &Path, name: &str) -> (PathBuf, PathBuf, CertificateDer<'static>) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert_file, key_file) = (
        folder.join(format!("{name}.crt")),
        folder.join(format!("{name}.key")),
    );
    fs::write(&cert_file, cert.pem()).unwrap();
    fs::write(&key_file, signing_key.serialize_pem()).unwrap();
    (cert_file, key_file, cert.der().clone())
}

fn ask(server: &Server, trusted: &CertificateDer<'static>, bytes: &[u8]) -> std::io::Result<Reply> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(client, TcpStream::connect(server.address)?);
    stream.write_all(bytes)?;
    Ok(read_reply(&mut stream))
}

#[test]
fn answers_come_over_tls_whole_and_streamed_and_plain_http_gets_none() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key, trusted) = certificate(folder.path(), "a");
    let options = Options {
        tls: Some(Tls::read(&cert, &key).unwrap()),
        ..Options::default()
    };
    let server = Server::start(SessionLimits::new(2, 512, 64), options);
    for stream in [false, true] {
        let body =
            json!({"messages": said("Hi"), "max_tokens": 40, "stream": stream, "logit_bias": {"0": -100}});
        let reply = ask(
            &server,
            &trusted,
            &request("/v1/chat/completions", "", body.to_string().as_bytes()),
        )
        .unwrap();
        assert!(reply.status == 200 && reply.complete, "{}", reply.text());
        assert!(
            reply.text().contains("\"finish_reason\":\"length\""),
            "{}",
            reply.text()
        );
    }
    let (_, _, other) = certificate(folder.path(), "b");
    assert!(
        ask(&server, &other, b"GET /health HTTP/1.1\r\n\r\n").is_err(),
        "a stranger's certificate was trusted"
    );
    let mut plain = server.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut answer = Vec::new();
    let _ = std::io::Read::read_to_end(&mut plain, &mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    let metrics = ask(
        &server,
        &trusted,
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    );
    assert!(metrics.unwrap().text().contains("dualgrain:connections"));
}

#[test]
fn a_certificate_that_can_not_be_used_is_told_of_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key, _) = certificate(folder.path(), "a");
    let (_, other_key, _) = certificate(folder.path(), "b");
    let said = |cert: &Path, key: &Path| Tls::read(cert, key).unwrap_err().to_string();
    let message = said(&cert, &other_key);
    assert!(
        message.contains("does not fit the first certificate"),
        "{message}"
    );
    let message = said(Path::new("/no/such.crt"), &key);
    assert!(
        message.starts_with("/no/such.crt: reading certificates"),
        "{message}"
    );
    let message = said(&key, &key);
    assert!(message.contains("no certificate in it"), "{message}");
    let message = said(&cert, &cert);
    assert!(message.contains("reading the private key"), "{message}");
    let broken = folder.path().join("broken.crt");
    fs::write(
        &broken,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let message = said(&broken, &key);
    assert!(message.contains("broken.crt"), "{message}");
}
