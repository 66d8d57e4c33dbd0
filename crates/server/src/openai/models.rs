//! GET /v1/models.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Response;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::json_response;

/// The one model there is, as a list.
pub async fn models(State(app): State<Arc<App>>) -> Response<Body> {
    json_response(&json!({"object": "list", "data": [entry(&app)]}))
}

/// The model of that name.
pub async fn model(State(app): State<Arc<App>>, Path(name): Path<String>) -> Response<Body> {
    super::respond(app.check_model(Some(&name)).map(|()| json_response(&entry(&app))))
}

fn entry(app: &App) -> Value {
    let model = &app.model;
    json!({
        "id": model.alias,
        "object": "model",
        "created": model.created_s,
        "owned_by": "dualgrain",
        "max_model_len": model.bounds.context_tokens
    })
}
