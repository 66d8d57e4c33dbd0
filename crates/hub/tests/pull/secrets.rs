//! The token goes to the hub and to no other server; TLS and proxies on the way.

use std::ffi::OsString;
use std::fs;
use std::sync::atomic::AtomicBool;

use dualgrain_hub::{Extent, Proxies, Revision, Settings, pull};

use crate::hub::{Hub, Silent, fronted, settings, small_model, stored};
use crate::server::{Reply, Server, start_proxy};

fn pull_with(settings: &Settings) -> Result<dualgrain_hub::Pulled, dualgrain_hub::HubError> {
    let watched = (&Silent as &dyn dualgrain_hub::Watch, &AtomicBool::new(false));
    pull(
        &"org/name".parse().unwrap(),
        &Revision::default(),
        Extent::Whole,
        settings,
        watched,
    )
}

fn proxies(variables: &[(&str, String)]) -> Proxies {
    let variable = |name: &str| {
        let found = variables.iter().find(|(other, _)| *other == name);
        found.map(|(_, value)| OsString::from(value))
    };
    Proxies::from_variables(&variable).unwrap()
}

#[test]
fn the_token_stays_with_the_hub() {
    let hub = Hub::start(small_model(1000));
    hub.pull().unwrap();
    let (front, store) = (hub.front.asked(), hub.store.asked());
    assert!(
        front
            .iter()
            .all(|asked| asked.header("authorization") == Some("Bearer hf_secret"))
    );
    assert!(!store.is_empty() && store.iter().all(|asked| asked.header("authorization").is_none()));
}

#[test]
fn without_a_token_none_is_sent() {
    let mut hub = Hub::start(small_model(1000));
    hub.settings.token = None;
    hub.pull().unwrap();
    assert!(
        hub.front
            .asked()
            .iter()
            .all(|asked| asked.header("authorization").is_none())
    );
}

/// A hub under TLS that keeps large files itself.
fn tls_hub(dir: &std::path::Path) -> (Server, Settings) {
    let files = small_model(100_000);
    let (server, certificate) = Server::start_tls(move |asked| match asked.target.contains("signature") {
        true => stored(&files, asked),
        false => fronted(&files, "", asked),
    });
    let trusted = dir.join("trusted.pem");
    fs::write(&trusted, certificate).unwrap();
    let mut settings = settings(&server.url(), &dir.join("cache"));
    settings.certificates = Some(trusted);
    (server, settings)
}

#[test]
fn tls_is_spoken_with_servers_that_are_trusted_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, mut settings) = tls_hub(dir.path());
    assert_eq!(pull_with(&settings).unwrap().size_bytes(), 100_002);
    settings.certificates = None;
    settings.cache = dir.path().join("other");
    let error = pull_with(&settings).unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    settings.certificates = Some(dir.path().join("none.pem"));
    let error = pull_with(&settings).unwrap_err().to_string();
    assert!(error.contains("SSL_CERT_FILE"), "{error}");
}

#[test]
fn a_redirection_out_of_tls_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let files = small_model(100);
    let (server, certificate) = Server::start_tls(move |asked| match asked.target.contains("/resolve/") {
        true => Reply::new(302, "").with("location", "http://127.0.0.1:1/x"),
        false => fronted(&files, "", asked),
    });
    fs::write(dir.path().join("trusted.pem"), certificate).unwrap();
    let mut settings = settings(&server.url(), dir.path());
    settings.certificates = Some(dir.path().join("trusted.pem"));
    let error = pull_with(&settings).unwrap_err().to_string();
    assert!(error.contains("gives up TLS"), "{error}");
}

#[test]
fn proxies_open_tunnels_for_tls_and_see_no_token() {
    let dir = tempfile::tempdir().unwrap();
    let (server, mut settings) = tls_hub(dir.path());
    let (proxy, asked) = start_proxy(server.address);
    settings.proxies = proxies(&[("HTTPS_PROXY", format!("http://me:word@{proxy}"))]);
    pull_with(&settings).unwrap();
    let asked = asked.lock().unwrap().clone();
    assert!(!asked.is_empty());
    for request in asked {
        assert_eq!(
            (request.method.as_str(), request.header("authorization")),
            ("CONNECT", None)
        );
        assert_eq!(request.target, format!("localhost:{}", server.address.port()));
        assert_eq!(request.header("proxy-authorization"), Some("Basic bWU6d29yZA=="));
    }
}

#[test]
fn proxies_forward_what_is_not_under_tls_and_are_passed_where_they_should_be() {
    let mut hub = Hub::start(small_model(100));
    let (proxy, asked) = start_proxy(hub.front.address);
    let port = hub.store.address.port();
    hub.settings.proxies = proxies(&[
        ("http_proxy", proxy.to_string()),
        ("NO_PROXY", format!("127.0.0.1:{port}")),
    ]);
    hub.assert_whole(&hub.pull().unwrap());
    let asked = asked.lock().unwrap().clone();
    let whole = format!("{}/api/models/org/name/", hub.front.url());
    assert!(asked[0].target.starts_with(&whole), "{asked:?}");
    assert_eq!(
        (asked.len(), hub.store.asked().len()),
        (hub.front.asked().len(), 1)
    );
}

#[test]
fn a_proxy_that_opens_no_way_is_named() {
    let proxy = Server::start(|_| Reply::new(403, ""));
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings("https://hub.example", dir.path());
    settings.proxies = proxies(&[("HTTPS_PROXY", proxy.url())]);
    let error = pull_with(&settings).unwrap_err().to_string();
    let place = proxy.address.to_string();
    assert!(
        error.contains(&place) && error.contains("403") && error.contains("hub.example"),
        "{error}"
    );
}
