//! Bodies of requests: JSON objects of bounded size that come in bounded time.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Request, StatusCode};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::error::ApiError;
use crate::parameters::Fields;

/// A body that takes longer than this is given up.
const READ_TIME: Duration = Duration::from_secs(60);

/// A longer body is read only while few such bodies are.
const SMALL_BYTES: u64 = 64 << 10;
const MAX_LONG_BODIES: usize = 32;

/// Reads bodies, and bounds what all that are being read take.
#[derive(Debug)]
pub struct Bodies {
    limit_bytes: usize,
    long: Semaphore,
}

impl Bodies {
    /// Takes bodies of at most `limit_bytes`.
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            long: Semaphore::new(MAX_LONG_BODIES),
        }
    }

    /// The fields of the JSON object in a request's body.
    pub async fn read(&self, request: Request<Body>) -> Result<Fields, ApiError> {
        check_type(&request)?;
        let bytes = tokio::time::timeout(READ_TIME, self.bytes(request.into_body())).await;
        let late = |_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body took too long to come");
        let value = serde_json::from_slice(&bytes.map_err(late)??);
        let value: Value = value.map_err(|error| ApiError::bad(format!("the body is no JSON: {error}")))?;
        match value {
            Value::Object(_) => Fields::of("", value),
            _ => Err(ApiError::bad("the body is no JSON object: expected {...}")),
        }
    }

    async fn bytes(&self, body: Body) -> Result<Bytes, ApiError> {
        let size = body.size_hint();
        // A body that is known to be too long need not come.
        if size.lower() > self.limit_bytes as u64 {
            return Err(too_long(self.limit_bytes));
        }
        let is_small = size.upper().is_some_and(|bytes| bytes <= SMALL_BYTES);
        let _place = match is_small {
            true => None,
            false => self.long.acquire().await.ok(),
        };
        let bytes = to_bytes(body, self.limit_bytes).await;
        bytes.map_err(|error| unread(&error, self.limit_bytes))
    }
}

/// A page of another origin can send a form or plain text without asking; JSON it can not.
fn check_type(request: &Request<Body>) -> Result<(), ApiError> {
    let header = request.headers().get(CONTENT_TYPE);
    let is_json = header.and_then(|value| value.to_str().ok()).is_some_and(|value| {
        let kind = value.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/json")
    });
    match is_json {
        true => Ok(()),
        false => Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "expected the header `Content-Type: application/json`",
        )),
    }
}

fn unread(error: &axum::Error, limit_bytes: usize) -> ApiError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        // The limit is found by its words: its type belongs to a crate underneath.
        if cause.to_string().contains("length limit exceeded") {
            return too_long(limit_bytes);
        }
        source = cause.source();
    }
    ApiError::bad("the body broke off")
}

fn too_long(limit_bytes: usize) -> ApiError {
    let message = format!("the body has more than {limit_bytes} bytes");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
}
