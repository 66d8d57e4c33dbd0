//! The paged cache of keys and values.

pub(crate) mod element;
pub(crate) mod storage;
pub(crate) mod write;
