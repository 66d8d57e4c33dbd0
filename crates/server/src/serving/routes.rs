//! Which path leads where, and who is let in.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::get;
use serde_json::Value;

use super::access::follow;
use super::hosts::{Hosts, check_host};
use super::origins::{Origins, allow_origins};
use super::paths::{DOCUMENT, PATHS};
use crate::app::App;
use crate::call::Call;
use crate::contract::{About, document};
use crate::endpoints::ui;
use crate::error::{ApiError, json_response};

/// All paths. Those of models and texts ask for a key where there are keys; `hosts` are names that all of them ask for.
pub fn router(app: Arc<App>, hosts: Option<Hosts>) -> Router {
    let (mut guarded, mut open) = (Router::new(), Router::new());
    for (endpoint, route) in PATHS {
        let paths = if endpoint.guarded { &mut guarded } else { &mut open };
        *paths = std::mem::take(paths).route(endpoint.path, route());
    }
    let guarded = guarded.route_layer(from_fn_with_state(Arc::clone(&app), check_key));
    let document = document_of(&app);
    let router = open
        .route(
            DOCUMENT.path,
            get(move || std::future::ready(json_response(&document))),
        )
        .merge(ui::router())
        .merge(guarded)
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Arc::clone(&app));
    let router = match hosts {
        Some(hosts) => router.layer(from_fn_with_state(Arc::new(hosts), check_host)),
        None => router,
    };
    let origins = Arc::new(Origins::new(
        &app.options.cors_origins,
        app.options.keys.is_some(),
    ));
    let router = match app.options.cors_origins.is_empty() {
        false => router.layer(from_fn_with_state(origins, allow_origins)),
        true => router,
    };
    router.layer(from_fn_with_state(app, follow))
}

/// What /openapi.json says.
fn document_of(app: &App) -> Value {
    let about = About {
        alias: app.model.alias.clone(),
        bounds: app.model.bounds,
        ignore_unknown: app.options.ignore_unknown,
    };
    let endpoints: Vec<_> = PATHS.iter().map(|(endpoint, _)| *endpoint).collect();
    document(
        &about,
        app.options.keys.is_some(),
        &[&endpoints[..], &[DOCUMENT]].concat(),
    )
}

async fn check_key(State(app): State<Arc<App>>, request: Request<Body>, next: Next) -> Response<Body> {
    let Some(keys) = &app.options.keys else {
        return next.run(request).await;
    };
    let key = named_keys(request.headers()).find_map(|key| keys.find(key));
    if let Some(key) = key {
        Call::current().set_key(key);
        return next.run(request).await;
    }
    let words = "a key is needed: `Authorization: Bearer KEY` or `x-api-key: KEY` with a key of this server";
    let error = ApiError::new(StatusCode::UNAUTHORIZED, words).with_code("invalid_api_key");
    let mut response = error.respond_at(request.uri());
    let headers = response.headers_mut();
    headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// The keys that a request names, as OpenAI's and Anthropic's clients do. Some send both headers, one with a placeholder.
fn named_keys(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(b"bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
    });
    let plain = headers.get("x-api-key").map(HeaderValue::as_bytes);
    bearer.into_iter().chain(plain).map(<[u8]>::trim_ascii)
}

async fn unknown_path(uri: Uri) -> Response<Body> {
    let message = format!("there is nothing at {}", uri.path());
    let error = ApiError::new(StatusCode::NOT_FOUND, message).with_code("unknown_path");
    error.respond_at(&uri)
}

async fn wrong_method(method: Method, uri: Uri) -> Response<Body> {
    let message = format!("{} does not take {method}", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message).respond_at(&uri)
}
