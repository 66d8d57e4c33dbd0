//! Bodies of requests: JSON objects of bounded size that come in bounded time.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Request, StatusCode};

use crate::error::ApiError;
use crate::parameters::Fields;

/// A body that takes longer than this is given up.
const READ_TIME: Duration = Duration::from_secs(60);

/// The fields of the JSON object in a request's body, of at most `limit_bytes`.
pub async fn read(request: Request<Body>, limit_bytes: usize) -> Result<Fields, ApiError> {
    check_type(&request)?;
    let bytes = match tokio::time::timeout(READ_TIME, to_bytes(request.into_body(), limit_bytes)).await {
        Err(_) => {
            return Err(ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                "the body took too long to come",
            ));
        }
        Ok(Err(error)) => return Err(unread(&error, limit_bytes)),
        Ok(Ok(bytes)) => bytes,
    };
    let value = serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::bad(format!("the body is no JSON: {error}")))?;
    match value {
        serde_json::Value::Object(_) => Fields::of("", value),
        _ => Err(ApiError::bad("the body is no JSON object: expected {...}")),
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
            let message = format!("the body has more than {limit_bytes} bytes");
            return ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message);
        }
        source = cause.source();
    }
    ApiError::bad("the body broke off")
}
