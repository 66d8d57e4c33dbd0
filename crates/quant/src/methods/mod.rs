//! From float weights to codes and scales.

pub mod dgq;
pub(crate) mod linear;
pub(crate) mod quantization_grid;
