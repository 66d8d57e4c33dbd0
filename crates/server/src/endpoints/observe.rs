//! How the server is: GET /health, /ready, /metrics.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{Response, StatusCode};
use serde_json::json;

use crate::app::App;
use crate::error::json_response;
use crate::running::Health;

/// The type of what /metrics answers.
pub const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether the engine gets on: 200 or 503 with the reason.
pub async fn health(State(app): State<Arc<App>>) -> Response<Body> {
    match app.progress.health(app.options.stall) {
        Health::Well => json_response(&json!({"status": "ok"})),
        Health::Stalled(silent) => {
            let silent_s = silent.as_secs();
            unwell(&format!("no step has ended for {silent_s} s"))
        }
        Health::Stopped => unwell("the engine has stopped"),
    }
}

/// Whether requests are taken: 200, or 503 while the server drains or is unhealthy.
pub async fn ready(State(app): State<Arc<App>>) -> Response<Body> {
    match app.is_draining() {
        true => unwell("the server is shutting down"),
        false => health(State(app)).await,
    }
}

/// Everything that is counted, as text.
pub async fn metrics(State(app): State<Arc<App>>) -> Response<Body> {
    let mut response = Response::new(Body::from(app.metrics.text()));
    let kind = HeaderValue::from_static(METRICS_TYPE);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn unwell(why: &str) -> Response<Body> {
    let mut response = json_response(&json!({"status": "unavailable", "reason": why}));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}
