//! The tensors of a model folder: memory-mapped (`mapping`, `open`), checked when they are taken (`tensors`, `linear`). Linears that
//! another program quantized are floats for everything behind this folder (`packed`), and experts have tensors of their own (`stacked`).

mod blocks;
mod completeness;
mod error;
mod gguf;
mod linear;
mod mapping;
mod names;
mod open;
mod packed;
mod stacked;
mod tensors;

pub use error::WeightsError;
pub(crate) use mapping::MappedFile;
pub use names::LEADING;
pub use tensors::{InFloats, RawTensor, Weights};
