//! Constraints to JSON Schemas for other programs that serve the engine.

use std::sync::Arc;

use axum::http::StatusCode;
use dualgrain::engine::SharedConstraint;
use dualgrain::engine::tokenizer::Tokenizer;
use serde_json::Value;
use thiserror::Error;

use super::compile::Grammars;

/// Makes constraints to JSON Schemas for the tokens of one model, as this server follows them: a keyword that is not followed is refused.
#[derive(Clone)]
pub struct Schemas(Arc<Grammars>);

/// Why there is no constraint.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum SchemasError {
    /// The schema can not be followed: where, and what to do.
    #[error("{0}")]
    Refused(String),
    /// Too many are compiled at once: ask again.
    #[error("{0}")]
    Busy(String),
}

impl Schemas {
    /// For the tokens of `tokenizer`; `end_tokens` are those that end an answer.
    pub fn new(tokenizer: Arc<Tokenizer>, end_tokens: &[u32]) -> Self {
        Self(Arc::new(Grammars::new(tokenizer, end_tokens)))
    }

    /// The constraint to values of a schema that stands at `field` of a request. Waits for its grammar, for seconds at most: not for
    /// asynchronous threads.
    ///
    /// # Errors
    /// A schema that is not followed or whose grammar is too large; too many grammars at once.
    pub fn constraint(&self, field: &str, schema: &Value) -> Result<SharedConstraint, SchemasError> {
        self.0.schema(field, schema).map_err(|error| match error.status {
            StatusCode::TOO_MANY_REQUESTS => SchemasError::Busy(error.message),
            _ => SchemasError::Refused(error.message),
        })
    }
}
