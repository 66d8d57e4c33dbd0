//! A run: the walk over the blocks, what survives a kill, the folder that appears at the end. `quantize` is the way in.

pub mod block;
pub mod checks;
pub mod context;
pub mod correction;
pub mod head;
pub mod identity;
pub mod journal;
pub mod multiply_adds;
pub mod output;
pub mod plan;
pub mod quantize;
pub mod sealed_file;
