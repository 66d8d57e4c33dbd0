//! The paged cache of keys and values.
//!
//! `storage` holds the pages, `element` says what they store and where in a page it lies, `write` fills them.

pub(crate) mod element;
pub(crate) mod storage;
pub(crate) mod write;
