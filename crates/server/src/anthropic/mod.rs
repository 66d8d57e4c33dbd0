//! The interface of Anthropic: messages and how many tokens they have.

mod blocks;
mod conversation;
mod messages;

pub use messages::{count_tokens, messages};
