//! Buffers of the CPU: row-major matrices of floats, quantized activations, embedding tables, rows sorted for experts.

pub(crate) mod matrix;
pub(crate) mod quantized;
pub(crate) mod sorted_rows;
pub(crate) mod table;
