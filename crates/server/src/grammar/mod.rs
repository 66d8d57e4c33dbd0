//! Answers under a grammar: JSON Schemas are checked keyword by keyword, compiled beside the engine and followed token by token.
//!
//! Nothing fails open. `schema` refuses every keyword that is not known to be followed, with its JSON path, before the grammar's library
//! sees the schema; `bounds` rewrites what the library follows wrongly; `compile` bounds time and size; `following` is what the engine asks for the next mask.

mod bounds;
mod compile;
mod following;
mod formats;
mod keywords;
mod limits;
mod schema;
mod schemas;

pub use compile::{Grammars, with_white_space};
pub use schema::{Checked, SchemaError, check};
pub use schemas::{Schemas, SchemasError};

#[cfg(test)]
mod tests;
