//! Buffers of the CPU: row-major matrices of floats, quantized activations, embedding tables.

pub(crate) mod matrix;
pub(crate) mod quantized;
pub(crate) mod table;
