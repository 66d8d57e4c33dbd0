//! CORS: pages of other origins that may use the server from a browser. None may unless its origin is named.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HeaderValue,
    ORIGIN, VARY,
};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use axum::middleware::Next;

/// What pages may send: any header that a client of these interfaces has, named one by one as `*` does not cover keys.
const HEADERS_SENT: &str = "authorization, content-type, x-api-key, x-request-id, x-request-timeout, anthropic-version, anthropic-beta, \
    anthropic-dangerous-direct-browser-access, openai-organization, openai-project, x-stainless-lang, x-stainless-package-version, \
    x-stainless-os, x-stainless-arch, x-stainless-runtime, x-stainless-runtime-version, x-stainless-retry-count, x-stainless-timeout, \
    x-stainless-helper-method, idempotency-key, user-agent";
const HEADERS_READ: &str = "x-request-id, request-id, retry-after";
/// How long a browser may remember the answer, in seconds.
const MAX_AGE_S: &str = "600";

/// Origins whose pages may use the server.
#[derive(Debug)]
pub struct Origins(Vec<String>);

impl Origins {
    /// These; `*` stands for any, and is passed over where there are keys: a page that anybody wrote could use one that a browser keeps.
    pub fn new(named: &[String], has_keys: bool) -> Self {
        let named = named.iter().filter(|origin| !has_keys || *origin != "*");
        Self(named.cloned().collect())
    }

    /// What the answer to a request of this origin says; `None` where it may not use the server.
    fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        if self.0.iter().any(|named| named == "*") {
            return Some(HeaderValue::from_static("*"));
        }
        let is_named = |named: &String| named.as_bytes().eq_ignore_ascii_case(origin.as_bytes());
        self.0.iter().any(is_named).then(|| origin.clone())
    }
}

/// Answers questions of browsers, and tells them what pages may read.
pub async fn allow_origins(
    State(origins): State<Arc<Origins>>,
    request: Request<Body>,
    next: Next,
) -> Response<Body> {
    let allowed = origins.allowed(request.headers());
    let is_question = request.method() == Method::OPTIONS
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
        && request.headers().contains_key(ORIGIN);
    let mut response = match is_question {
        true => preflight(),
        false => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = allowed {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let read = HeaderValue::from_static(HEADERS_READ);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, read);
    }
    response
}

/// What may be asked. Without an allowed origin beside it, a browser takes it for a refusal.
fn preflight() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let methods = HeaderValue::from_static("GET, POST, DELETE");
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    let sent = HeaderValue::from_static(HEADERS_SENT);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, sent);
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_S));
    response
}
