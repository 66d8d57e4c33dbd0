//! Answers under schemas, tool calls and thoughts, of a model that knows nothing of any of these.

mod conversations;
mod schemas;
mod styles;
mod thoughts;
mod tools;
