//! Kernels that take activations row by row, a token each.

mod gate_quantize;
mod gather_rows;
mod hadamard;
mod norm;
mod pointwise;
mod quantize_per_token;
mod quantize_rows;
mod quantized_input;
mod rope;

pub use gate_quantize::{GateQuantize, gate_quantize_source};
pub use gather_rows::{GatherRows, TableType, gather_rows_source};
pub use hadamard::{Hadamard, hadamard_source};
pub use norm::{NormRows, NormRule, NormWeights, norm_source};
pub(crate) use pointwise::{ACTIVATIONS, activation_code};
pub use pointwise::{Pointwise, PointwiseRows, pointwise_source};
pub use quantize_per_token::{Quantize, quantize_source};
pub use quantize_rows::quantize_rows_sources;
pub use quantized_input::{Before, Input};
pub use rope::{Rope, rope_source};
