//! Buffers of the CPU: row-major matrices, quantized activations, embedding tables.

pub(crate) mod matrix;
pub(crate) mod quantized;
pub(crate) mod table;
