//! Text to tokens and back: POST /tokenize, /detokenize, /apply-template.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use serde_json::{Value, json};

use crate::app::App;
use crate::error::{ApiError, json_response};
use crate::openai::{message_rules, respond};
use crate::parameters::{Fields, shown, token_ids};
use crate::prompt::take_messages;

/// The tokens of `prompt`, or of the conversation in `messages`.
pub async fn tokenize(State(app): State<Arc<App>>, request: Request<Body>) -> Response<Body> {
    respond(answer(app, request, tokens_of).await)
}

/// The text of `tokens`.
pub async fn detokenize(State(app): State<Arc<App>>, request: Request<Body>) -> Response<Body> {
    respond(answer(app, request, text_of).await)
}

/// The prompt text of the conversation in `messages`.
pub async fn apply_template(State(app): State<Arc<App>>, request: Request<Body>) -> Response<Body> {
    respond(answer(app, request, rendered).await)
}

async fn answer(
    app: Arc<App>,
    request: Request<Body>,
    work: fn(&App, Fields) -> Result<Value, ApiError>,
) -> Result<Response<Body>, ApiError> {
    let (mut fields, turn) = app.bodies.read(request).await?;
    let held = (turn, app.texts.take().await?);
    app.check_model(fields.text("model")?.as_deref())?;
    let value = app.blocking(held, move |app| work(app, fields)).await?;
    Ok(json_response(&value))
}

fn tokens_of(app: &App, mut fields: Fields) -> Result<Value, ApiError> {
    let ignore_unknown = app.options.ignore_unknown;
    let tokens = match fields.text("prompt")? {
        Some(text) => {
            let special_tokens = match fields.value("add_special_tokens") {
                None | Some(Value::Bool(true)) => true,
                Some(Value::Bool(false)) => false,
                Some(other) => {
                    let problem = format!("expected true or false, got {}", shown(&other));
                    return Err(fields.error("add_special_tokens", problem));
                }
            };
            fields.finish(
                &["model", "prompt", "messages", "add_special_tokens"],
                ignore_unknown,
            )?;
            app.encode(&text, special_tokens)?
        }
        None => {
            let messages = take_messages(&mut fields, message_rules(app))?;
            fields.finish(&["model", "prompt", "messages"], ignore_unknown)?;
            app.chat_tokens(&messages)?
        }
    };
    let context_tokens = app.model.bounds.context_tokens;
    Ok(json!({"tokens": tokens, "count": tokens.len(), "max_model_len": context_tokens}))
}

fn text_of(app: &App, mut fields: Fields) -> Result<Value, ApiError> {
    let vocab_size = app.model.bounds.vocab_size;
    let list = fields.required("tokens")?;
    let tokens = list.as_array().and_then(|list| token_ids(list, vocab_size));
    let problem = || {
        format!(
            "expected a list of token ids below {vocab_size}, got {}",
            shown(&list)
        )
    };
    let tokens = tokens.ok_or_else(|| fields.error("tokens", problem()))?;
    fields.finish(&["model", "tokens"], app.options.ignore_unknown)?;
    let text = app.model.tokenizer.decode(&tokens, false);
    let text = text.map_err(|error| ApiError::bad(error.to_string()))?;
    Ok(json!({"prompt": text}))
}

fn rendered(app: &App, mut fields: Fields) -> Result<Value, ApiError> {
    let messages = take_messages(&mut fields, message_rules(app))?;
    fields.finish(&["model", "messages"], app.options.ignore_unknown)?;
    Ok(json!({"prompt": app.render(&messages, true)?}))
}
