//! What /openapi.json says of the endpoints: schemas from the table of parameters and the ranges that requests are checked against.

pub mod answers;
pub mod bodies;
mod conversation;
mod document;
mod endpoint;
mod forms;
mod shapes;

pub use document::document;
pub use endpoint::{About, Answer, Endpoint, Errors, Verb};
