//! What is done to a model before its weights are rounded, without changing the function it computes.

pub(crate) mod activation_error;
pub mod smoothing;
