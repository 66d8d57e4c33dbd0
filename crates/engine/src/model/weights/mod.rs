//! The tensors of a model folder: memory-mapped (`mapping`, `open`), checked when they are taken (`tensors`, `linear`).

mod error;
mod linear;
mod mapping;
mod names;
mod open;
mod tensors;

pub use error::WeightsError;
pub use names::LEADING;
pub use tensors::{InFloats, Weights};
