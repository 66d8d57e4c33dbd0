//! What a product reads, as it lies in a card's memory: packed weights, quantized activations.

mod float_scales;
mod packed_linear;
mod packing;
mod quantized_tokens;

pub use packed_linear::PackedLinear;
pub use packing::{BLOCK_K, BLOCK_N, block_bytes, groups_per_block, image_bytes, pack};
pub(crate) use packing::{check_group, group_macro, knows_group};
pub use quantized_tokens::{QuantizedTokens, TokenCodes};
