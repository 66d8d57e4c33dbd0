//! Which names a server has for its clients. A page in a browser can let its own name point at this machine (DNS rebinding), and then
//! reads what it likes; but it can not hide that name.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{HOST, HeaderName, ORIGIN};
use axum::http::{HeaderMap, Request, Response, StatusCode};
use axum::middleware::Next;

use crate::error::ApiError;

/// Names of a server that only its own machine reaches.
#[derive(Debug)]
pub struct Hosts {
    /// Names that a proxy gives it.
    allowed: Vec<String>,
    /// Origins whose pages may use it.
    origins: Vec<String>,
}

impl Hosts {
    /// The machine's own names and those of `allowed`; `origins` are those of pages from elsewhere that may use it, `*` all.
    pub fn new(allowed: &[String], origins: &[String]) -> Self {
        let names = allowed
            .iter()
            .map(|name| name_of(name).unwrap_or(name).to_owned());
        Self {
            allowed: names.collect(),
            origins: origins.to_vec(),
        }
    }

    /// Refuses requests that go to another name or come from a page of another origin.
    fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let host = text_of(headers, HOST).unwrap_or_default();
        if !name_of(host).is_some_and(|name| is_own(name) || self.is_allowed(name)) {
            let shown: String = host.chars().take(100).collect();
            let message = format!(
                "the header `Host` is `{shown}`: this server is localhost; --allow-host takes another name"
            );
            return Err(ApiError::new(StatusCode::FORBIDDEN, message).with_code("wrong_host"));
        }
        if !headers.contains_key(ORIGIN) {
            return Ok(());
        }
        let origin = text_of(headers, ORIGIN);
        if origin.is_some_and(|origin| self.takes(origin)) {
            return Ok(());
        }
        let origin = origin.and_then(|origin| origin.split_once("://"));
        // A proxy may pass its own name as the host and leave the origin as it is.
        let is_same = |(_, authority): (&str, &str)| {
            let is_allowed = name_of(authority).is_some_and(|name| self.is_allowed(name));
            is_allowed || authority.eq_ignore_ascii_case(host)
        };
        match origin.is_some_and(is_same) {
            true => Ok(()),
            false => {
                let message =
                    "the header `Origin` names another place: pages from elsewhere can not use this server";
                Err(ApiError::new(StatusCode::FORBIDDEN, message).with_code("wrong_origin"))
            }
        }
    }

    fn takes(&self, origin: &str) -> bool {
        let is_it = |named: &String| named == "*" || named.eq_ignore_ascii_case(origin);
        self.origins.iter().any(is_it)
    }

    fn is_allowed(&self, name: &str) -> bool {
        self.allowed
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(name))
    }
}

/// Lets nobody in who was led here by another name.
pub async fn check_host(
    State(hosts): State<Arc<Hosts>>,
    request: Request<Body>,
    next: Next,
) -> Response<Body> {
    match hosts.check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.respond_at(request.uri()),
    }
}

fn text_of(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Nobody else can let these names point elsewhere.
fn is_own(name: &str) -> bool {
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    let is_loopback = address.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    is_loopback || name.eq_ignore_ascii_case("localhost")
}

/// What stands before the port, if anything does.
fn name_of(authority: &str) -> Option<&str> {
    let end = match authority.find(']') {
        Some(bracket) => bracket + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (name, port) = authority.split_at(end);
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(host: Option<&str>, origin: Option<&str>) -> u16 {
        let mut headers = HeaderMap::new();
        let all = [(HOST, host), (ORIGIN, origin)];
        for (name, value) in all.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            headers.insert(name, value.parse().unwrap());
        }
        let hosts = Hosts::new(&["chat.example".to_owned()], &["https://page.example".to_owned()]);
        hosts
            .check(&headers)
            .err()
            .map_or(200, |error| error.status.as_u16())
    }

    #[test]
    fn only_names_of_this_machine_and_its_proxy_are_taken() {
        let right = [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:1",
            "[::1]",
            "[::1]:80",
            "chat.example:443",
        ];
        for host in right {
            assert_eq!(status(Some(host), None), 200, "{host}");
        }
        let wrong = [
            "evil.example",
            "",
            "localhost.evil",
            "127.0.0.1.evil",
            "[::1]evil",
            "10.0.0.1",
            "localhost:x",
            "a@localhost",
        ];
        for host in wrong {
            assert_eq!(status(Some(host), None), 403, "{host}");
        }
        assert_eq!(status(None, None), 403);
    }

    #[test]
    fn only_pages_of_the_same_origin_are_answered() {
        let host = Some("localhost:8080");
        for origin in ["http://localhost:8080", "https://chat.example"] {
            assert_eq!(status(host, Some(origin)), 200, "{origin}");
        }
        for origin in [
            "http://localhost:3000",
            "http://evil.example",
            "null",
            "",
            "http://127.0.0.1:8080",
        ] {
            assert_eq!(status(host, Some(origin)), 403, "{origin}");
        }
    }
}
