//! Bodies of requests: JSON objects of bounded size that come in bounded time.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Request, StatusCode};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::error::ApiError;
use crate::parameters::Fields;
use crate::turns::{Turn, Turns, beside};

/// A body that takes longer than this is given up.
const READ_TIME: Duration = Duration::from_secs(60);

/// Of a longer body the rest is read only while few such bodies are: as JSON it can take many times its bytes.
const SMALL_BYTES: usize = 64 << 10;
const MAX_LONG_BODIES: usize = 4;
/// So many times the limit of a body that is too long is read and forgotten.
const PASSED_OVER: usize = 4;

/// Reads bodies, and bounds what all that are being read take.
#[derive(Debug)]
pub struct Bodies {
    limit_bytes: usize,
    long: Turns,
}

/// What has come of a body.
#[derive(Default)]
struct Coming {
    bytes: Vec<u8>,
    num_bytes: usize,
    turn: Option<Turn>,
    refused: Option<ApiError>,
}

impl Bodies {
    /// Takes bodies of at most `limit_bytes`.
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            long: Turns::new(MAX_LONG_BODIES),
        }
    }

    /// The fields of the JSON object in a request's body, and the turn that a long one has: it ends when the request needs its text no
    /// more.
    pub async fn read(&self, request: Request<Body>) -> Result<(Fields, Option<Turn>), ApiError> {
        check_type(&request)?;
        let (bytes, turn) = self.bytes(request.into_body()).await?;
        match turn {
            None => Ok((fields(&bytes)?, None)),
            Some(turn) => {
                // The turn goes with the work, which may outlive the request.
                let work = move || Ok((fields(&bytes)?, Some(turn)));
                beside((), work).await
            }
        }
    }

    async fn bytes(&self, body: Body) -> Result<(Vec<u8>, Option<Turn>), ApiError> {
        let late = |_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body took too long to come");
        let mut deadline = Instant::now() + READ_TIME;
        let mut pieces = body.into_data_stream();
        let mut coming = Coming::default();
        while let Some(piece) = timeout_at(deadline, pieces.next()).await.map_err(late)? {
            let piece = piece.map_err(|_| ApiError::bad("the body broke off"))?;
            coming.num_bytes += piece.len();
            // The client is not to blame for the time that its turn takes to come.
            let begun = Instant::now();
            self.admit(&mut coming).await;
            deadline += begun.elapsed();
            match coming.refused {
                None => coming.bytes.extend_from_slice(&piece),
                // A client that is still sending would not read why it is refused.
                Some(_) if coming.num_bytes <= self.limit_bytes.saturating_mul(PASSED_OVER) => {}
                Some(_) => break,
            }
        }
        match coming.refused {
            None => Ok((coming.bytes, coming.turn)),
            Some(error) => Err(error),
        }
    }

    /// Finds a turn for a body that has become long, or the reason why no more of it is kept.
    async fn admit(&self, coming: &mut Coming) {
        let refused = if coming.num_bytes > self.limit_bytes {
            let message = format!("the body has more than {} bytes", self.limit_bytes);
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
        } else if coming.num_bytes > SMALL_BYTES && coming.turn.is_none() && coming.refused.is_none() {
            match self.long.take().await {
                Ok(turn) => {
                    coming.turn = Some(turn);
                    return;
                }
                Err(error) => error,
            }
        } else {
            return;
        };
        (coming.bytes, coming.turn, coming.refused) = (Vec::new(), None, Some(refused));
    }
}

fn fields(bytes: &[u8]) -> Result<Fields, ApiError> {
    let value = serde_json::from_slice(bytes);
    let value: Value = value.map_err(|error| ApiError::bad(format!("the body is no JSON: {error}")))?;
    match value {
        Value::Object(_) => Fields::of("", value),
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
