//! What is done to a model before its weights are rounded, without changing the function it computes.

pub mod activation_error;
pub mod divided_rows;
pub mod float_head;
pub mod heads;
pub mod linear_smoothing;
pub mod producer;
pub mod rotation;
pub mod sample;
pub mod smoothing;
