//! The interface of OpenAI: chat, completions, responses, models.

mod chat;
mod completions;
mod delta;
mod envelope;
mod input;
mod items;
mod logprobs;
mod models;
mod responses;

use axum::body::Body;
use axum::http::Response;

use crate::error::ApiError;

pub use chat::{chat, message_rules};
pub use completions::completions;
pub use models::{model, models};
pub use responses::responses;

/// An answer or an error in OpenAI's shape.
pub fn respond(answer: Result<Response<Body>, ApiError>) -> Response<Body> {
    answer.unwrap_or_else(|error| error.respond(&error.openai()))
}
