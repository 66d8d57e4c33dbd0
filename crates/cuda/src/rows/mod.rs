//! Kernels that take activations row by row, a token each.

mod quantize_per_token;

pub use quantize_per_token::{Before, Input, Quantize, quantize_source};
