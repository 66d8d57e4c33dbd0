//! Errors of a request, in the shape of the interface that it came through, and of the server as a whole.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use axum::http::{Response, StatusCode, Uri};
use serde_json::{Value, json};
use thiserror::Error;

/// Why a server could not start or had to end.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Nobody can be served at this address.
    #[error("listening on {address}: {source} (is the port in use? --port takes another, 0 any free one)")]
    Listen {
        /// Host and port.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The runtime or the engine's thread could not start.
    #[error("starting the server: {0}")]
    Start(#[from] std::io::Error),
    /// The model could not be loaded or its buffers not be made.
    #[error(transparent)]
    Model(#[from] dualgrain::Error),
    /// What generation_config.json says can not be followed.
    #[error("generation_config.json: {0} (--ignore-defaults samples without it)")]
    Sampling(String),
    /// The chat template is damaged.
    #[error(transparent)]
    Template(#[from] dualgrain::engine::chat::ChatError),
    /// The engine's thread ended by itself.
    #[error("the engine stopped: its thread has panicked")]
    EngineStopped,
}

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// The status of the answer.
    pub status: StatusCode,
    /// What was wrong and what to do, for a person.
    pub message: String,
    /// The field that was wrong.
    pub param: Option<String>,
    /// One word for programs.
    pub code: Option<&'static str>,
    /// When to ask again.
    pub retry_after_s: Option<u64>,
}

impl ApiError {
    /// An error with a status and words.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            param: None,
            code: None,
            retry_after_s: None,
        }
    }

    /// A request that can not be answered as it is.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A field that can not be taken as it is; its name begins the message.
    pub fn field(name: impl Into<String>, problem: impl AsRef<str>) -> Self {
        let name = name.into();
        Self {
            param: Some(name.clone()),
            ..Self::bad(format!("{name}: {}", problem.as_ref()))
        }
    }

    /// The server's own fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// A request whose time is over.
    pub fn late(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, message).with_code("timeout")
    }

    /// The same with a word for programs.
    #[must_use]
    pub fn with_code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// As OpenAI's clients read it.
    pub fn openai(&self) -> Value {
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        json!({"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}})
    }

    /// As Anthropic's clients read it.
    pub fn anthropic(&self) -> Value {
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            503 => "overloaded_error",
            504 => "timeout_error",
            500.. => "api_error",
            _ => "invalid_request_error",
        };
        json!({"type": "error", "error": {"type": kind, "message": self.message}})
    }

    /// An error that a later request may not meet: clients are told to wait a second.
    pub fn come_again(status: StatusCode, message: &str) -> Self {
        Self::come_again_in(1, status, message)
    }

    /// The same, where it is known how long it may take.
    pub fn come_again_in(seconds: u64, status: StatusCode, message: &str) -> Self {
        Self {
            retry_after_s: Some(seconds),
            ..Self::new(status, message)
        }
    }

    /// The answer in the shape of the interface that the path belongs to.
    pub fn respond_at(&self, uri: &Uri) -> Response<Body> {
        match uri.path().starts_with("/v1/messages") {
            true => self.respond(&self.anthropic()),
            false => self.respond(&self.openai()),
        }
    }

    /// The whole answer, with `body` in the interface's shape.
    pub fn respond(&self, body: &Value) -> Response<Body> {
        let mut response = json_response(body);
        *response.status_mut() = self.status;
        if let Some(seconds) = self.retry_after_s {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// An answer of one JSON value.
pub fn json_response(value: &Value) -> Response<Body> {
    json_text(value.to_string())
}

/// An answer of one JSON value that is written already.
pub fn json_text(text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
