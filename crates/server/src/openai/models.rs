//! GET /v1/models.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::Response;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::{ApiError, json_response};

/// The one model there is, as a list.
pub async fn models(State(app): State<Arc<App>>) -> Response<Body> {
    json_response(&json!({"object": "list", "data": [entry(&app)]}))
}

/// The model of that name.
pub async fn model(State(app): State<Arc<App>>, name: Result<Path<String>, PathRejection>) -> Response<Body> {
    let wrong = |_| ApiError::bad("the name of the model in the path is no UTF-8 behind its percent signs");
    let checked = name
        .map_err(wrong)
        .and_then(|Path(name)| app.check_model(Some(&name)));
    super::respond(checked.map(|()| json_response(&entry(&app))))
}

fn entry(app: &App) -> Value {
    let model = &app.model;
    json!({
        "id": model.alias,
        "object": "model",
        "created": model.created_s,
        "owned_by": "dualgrain",
        "max_model_len": model.bounds.context_tokens,
        "machine": model.facts,
        "energy": app.options.energy.as_ref().map_or("not measured", |energy| &energy.source)
    })
}
