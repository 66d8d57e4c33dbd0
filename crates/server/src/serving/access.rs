//! A name for every request and a line in the log when its answer has ended. Lines hold no texts, no keys and no queries of URLs.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{HeaderName, HeaderValue};
use axum::http::{Method, Request, Response, StatusCode};
use axum::middleware::Next;
use hyper::body::{Frame, SizeHint};
use tokio::time::timeout_at;
use tracing::{debug, info};

use crate::app::App;
use crate::call::{Call, REQUEST_ID, check_timeout};
use crate::error::ApiError;

/// What the engine's thread gets to end a request whose time is over.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Bytes of a path that a line shows.
const SHOWN_BYTES: usize = 200;

/// Names a request and follows it to the end of its answer.
pub async fn follow(State(app): State<Arc<App>>, request: Request<Body>, next: Next) -> Response<Body> {
    let call = Arc::new(Call::new(request.headers(), app.options.timeout, || {
        app.next_id("req-")
    }));
    let mut line = Line::new(&request, Arc::clone(&call));
    #[cfg(feature = "otel")]
    line.trace(&app, &request);
    let uri = request.uri().clone();
    let answer = match check_timeout(request.headers()) {
        Ok(()) => in_time(&call, next.run(request)).await,
        Err(error) => Err(error),
    };
    let mut response = answer.unwrap_or_else(|error| error.respond_at(&uri));
    line.status = Some(response.status());
    if let Ok(id) = HeaderValue::from_str(&call.account.id) {
        let headers = response.headers_mut();
        // Anthropic's clients look for the second.
        headers.insert(HeaderName::from_static("request-id"), id.clone());
        headers.insert(HeaderName::from_static(REQUEST_ID), id);
    }
    response.map(|body| Body::new(Followed { body, line }))
}

/// The answer to a request, unless its time is over before it begins. The engine's thread keeps the time of those that it knows and is to speak
/// first; a step of its may take longer.
async fn in_time(
    call: &Arc<Call>,
    answer: impl Future<Output = Response<Body>>,
) -> Result<Response<Body>, ApiError> {
    let answer = Arc::clone(call).answered_by(answer);
    let Some(deadline) = call.deadline else {
        return Ok(answer.await);
    };
    let late = |_| {
        call.account.end("its time was over");
        ApiError::late("the time for this request is over")
    };
    timeout_at((deadline + LAST_WORDS).into(), answer)
        .await
        .map_err(late)
}

/// What will be written of a request.
struct Line {
    call: Arc<Call>,
    method: Method,
    path: String,
    begun: Instant,
    status: Option<StatusCode>,
    /// Whether the last byte of the answer was handed over.
    complete: bool,
    #[cfg(feature = "otel")]
    traced: Option<super::traced::Traced>,
}

/// A body that writes its line when it is dropped.
struct Followed {
    body: Body,
    line: Line,
}

impl Line {
    fn new(request: &Request<Body>, call: Arc<Call>) -> Self {
        let path = request.uri().path();
        let shown = path.floor_char_boundary(SHOWN_BYTES);
        Self {
            call,
            method: request.method().clone(),
            path: path[..shown].to_owned(),
            begun: Instant::now(),
            status: None,
            complete: false,
            #[cfg(feature = "otel")]
            traced: None,
        }
    }

    /// Lets a collector know of it when it has ended.
    #[cfg(feature = "otel")]
    fn trace(&mut self, app: &App, request: &Request<Body>) {
        let telemetry = app.telemetry.clone();
        self.traced = telemetry.map(|telemetry| super::traced::Traced::begin(telemetry, request));
    }

    /// Why it ended: by the engine's word, or because nobody read on.
    fn ended(&self, by_engine: Option<&'static str>) -> &'static str {
        match (by_engine, self.status) {
            (Some(why), _) => why,
            (None, None) => "the client went away",
            (None, Some(_)) if !self.complete => "the client went away",
            (None, Some(status)) if status.as_u16() >= 400 => "refused",
            (None, Some(_)) => "answered",
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let notes = self.call.account.notes();
        let ended = self.ended(notes.ended);
        let (id, method, path) = (&self.call.account.id, self.method.as_str(), &self.path);
        let status = self.status.map(|status| status.as_u16());
        let seconds = self.begun.elapsed().as_secs_f64();
        #[cfg(feature = "otel")]
        if let Some(traced) = self.traced.take() {
            traced.end((id, method, path), (status, seconds), (&notes, ended));
        }
        if notes.submitted.is_none() {
            // Who looks whether the server is well does so every few seconds.
            if method == "GET" {
                debug!(id, method, path, status, seconds, ended, "request");
            } else {
                info!(id, method, path, status, seconds, ended, "request");
            }
            return;
        }
        info!(
            id,
            method,
            path,
            status,
            seconds,
            queue_s = notes.queue_s,
            first_token_s = notes.first_token_s,
            prompt_tokens = notes.prompt_tokens,
            cached_tokens = notes.cached_tokens,
            generated_tokens = notes.generated_tokens,
            energy_j = notes.energy_j,
            ended,
            "request"
        );
    }
}

impl hyper::body::Body for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if matches!(frame, Poll::Ready(None)) || self.body.is_end_stream() {
            self.line.complete = true;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
