//! Bodies of requests: JSON objects of bounded size that come in bounded time.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Request, StatusCode};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::error::ApiError;
use crate::parameters::Fields;

/// A body that takes longer than this is given up.
const READ_TIME: Duration = Duration::from_secs(60);

/// A longer body is read only while few such bodies are.
const SMALL_BYTES: u64 = 64 << 10;
const MAX_LONG_BODIES: usize = 32;
/// So many times the limit of a body that is too long is read and forgotten.
const PASSED_OVER: usize = 4;

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

    async fn bytes(&self, body: Body) -> Result<Vec<u8>, ApiError> {
        let is_small = body.size_hint().upper().is_some_and(|bytes| bytes <= SMALL_BYTES);
        let _place = match is_small {
            true => None,
            false => self.long.acquire().await.ok(),
        };
        let mut pieces = body.into_data_stream();
        let (mut bytes, mut num_bytes) = (Vec::new(), 0);
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|_| ApiError::bad("the body broke off"))?;
            num_bytes += piece.len();
            match num_bytes <= self.limit_bytes {
                true => bytes.extend_from_slice(&piece),
                // A client that is still sending would not read why it is refused.
                false if num_bytes <= self.limit_bytes.saturating_mul(PASSED_OVER) => bytes.clear(),
                false => break,
            }
        }
        match num_bytes <= self.limit_bytes {
            true => Ok(bytes),
            false => {
                let message = format!("the body has more than {} bytes", self.limit_bytes);
                Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message))
            }
        }
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
