//! Ending an answer under way from another request.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::app::App;
use crate::call::Call;
use crate::error::{ApiError, json_response};

/// What answers' ids begin with.
const KINDS: [&str; 4] = ["resp_", "chatcmpl-", "cmpl-", "msg_"];

type Name = Result<Path<String>, PathRejection>;

/// DELETE /v1/responses/ID: nothing is stored that would have to be deleted beside.
pub async fn delete_response(State(app): State<Arc<App>>, name: Name) -> Response<Body> {
    let answer = |id: String| json!({"id": id, "object": "response", "deleted": true});
    end(&app, name, answer)
}

/// POST /v1/responses/ID/cancel.
pub async fn cancel_response(State(app): State<Arc<App>>, name: Name) -> Response<Body> {
    let answer = |id: String| json!({"id": id, "object": "response", "status": "cancelled"});
    end(&app, name, answer)
}

/// DELETE /v1/chat/completions/ID.
pub async fn delete_chat(State(app): State<Arc<App>>, name: Name) -> Response<Body> {
    let answer = |id: String| json!({"id": id, "object": "chat.completion.deleted", "deleted": true});
    end(&app, name, answer)
}

fn end(app: &App, name: Name, answer: impl Fn(String) -> Value) -> Response<Body> {
    let ended = name
        .map_err(|_| ApiError::bad("the name in the path is no UTF-8 behind its percent signs"))
        .and_then(|Path(id)| match cancel(app, &id) {
            true => Ok(json_response(&answer(id))),
            false => Err(unknown(&id)),
        });
    ended.unwrap_or_else(|error| error.respond(&error.openai()))
}

fn cancel(app: &App, id: &str) -> bool {
    let own = KINDS.iter().find_map(|kind| id.strip_prefix(kind));
    let key = Call::current().key();
    // A request may have a name that looks like an answer's.
    app.cancellations.cancel(id, key) || own.is_some_and(|own| app.cancellations.cancel(own, key))
}

fn unknown(id: &str) -> ApiError {
    let shown: String = id.chars().take(100).collect();
    let message = format!("no answer `{shown}` is under way: nothing is stored of those that have ended");
    ApiError::new(StatusCode::NOT_FOUND, message).with_code("not_found")
}
