//! The contract of a device: every operation a model needs, behind one trait.
//!
//! `naive/` is the specification, one file per operation; everything faster is compared with it bit for bit.
//! Devices (`dualgrain-cpu`, `dualgrain-cuda`) implement them. Integer sums have no order. Float operations fix theirs (see [`Device`]), so results do not depend on the
//! instruction set, the number of threads, or how many tokens share a step.
#![forbid(unsafe_code)]

pub mod cases;
mod contract;
mod error;
pub mod naive;

pub use contract::{
    Activation, ActivationScale, AttentionParams, CacheFormat, CacheShape, Columns, Device, Gram,
    MAX_HEAD_DIM, Operand, PAGE_TOKENS, SLICE_ROWS, Step,
};
pub use error::DeviceError;
