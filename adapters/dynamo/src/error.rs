//! Errors in the kinds that Dynamo's frontend knows: they decide the status a client gets, and whether another worker is tried.

use dynamo_backend_common::{BackendError, DynamoError, ErrorType};

/// The request can not be run by any worker: the client is told why.
pub fn invalid(message: impl Into<String>) -> DynamoError {
    let message = message.into();
    DynamoError::builder()
        .error_type(ErrorType::Backend(BackendError::InvalidArgument))
        .public_message(message.clone())
        .message(message)
        .build()
}

/// This worker takes no more requests now: another one may.
pub fn overloaded(message: impl Into<String>) -> DynamoError {
    build(ErrorType::WorkerOverloaded, message)
}

/// This worker ends: another one goes on.
pub fn shutting_down() -> DynamoError {
    build(
        ErrorType::Backend(BackendError::EngineShutdown),
        "the worker is shutting down",
    )
}

/// The engine could not go on.
pub fn failed(message: impl Into<String>) -> DynamoError {
    build(ErrorType::Backend(BackendError::Unknown), message)
}

fn build(kind: ErrorType, message: impl Into<String>) -> DynamoError {
    DynamoError::builder().error_type(kind).message(message).build()
}
