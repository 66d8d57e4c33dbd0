//! What a product reads, as it lies in a card's memory.

mod packing;

pub(crate) use packing::replace_scale;
pub use packing::{BLOCK_K, BLOCK_N, GroupLength, image_bytes, pack};
