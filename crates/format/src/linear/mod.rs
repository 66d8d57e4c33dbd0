//! Linear layers in every scheme a checkpoint stores.

pub mod join;
pub mod quantized;
pub mod weights;
