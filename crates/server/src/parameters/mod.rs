//! What a request may say: fields read one by one, and a table of all that are known.

mod fields;
mod metadata;
pub mod ranges;
mod sampling;
mod table;

pub use fields::{Fields, shown, token_ids};
pub use metadata::take_metadata;
pub use sampling::{Bounds, Choices, Wanted};
pub use table::{Api, Rule, parameters};
