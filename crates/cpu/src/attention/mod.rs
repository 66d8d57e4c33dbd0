//! Attention over the paged cache.

mod float;
mod int8;
pub(crate) mod tasks;
