//! What a request may say: fields read one by one, and a table of all that are known.

mod fields;
mod messages;
mod metadata;
pub mod ranges;
mod sampling;
mod table;

pub use fields::{Fields, shown, token_ids};
pub use messages::{ANTHROPIC_MESSAGES, CHAT_MESSAGES, INPUT_MESSAGES, MessageWords};
pub use metadata::take_metadata;
pub use sampling::{Bounds, Choices, Wanted, unasked_sampling};
pub use table::{Api, Rule, parameters};
