//! The two-phase search of group scales and channel scales. DGQ, arXiv 2310.04836.

pub(crate) mod approximate_gram;
pub mod candidates;
pub mod channel_search;
pub mod group_search;
pub(crate) mod multiply_adds;
pub mod two_phase;
