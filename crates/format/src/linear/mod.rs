//! Linear layers in every scheme a checkpoint stores.

mod bias;
mod checks;
pub mod float;
pub mod int8;
pub mod join;
pub mod quantized;
pub mod weights;
