//! The contract of a device: every operation a model needs, behind one trait.
//!
//! `naive` is the specification, one file per operation, and a device made of it ([`naive::NaiveDevice`]). Faster devices
//! (`dualgrain-cpu`, `dualgrain-cuda`) are compared with it bit for bit. Integer sums have no order. Float operations fix
//! theirs (see [`Device`]), so results do not depend on the instruction set, the number of threads, or how many tokens
//! share a step.
#![forbid(unsafe_code)]

mod activation;
mod blocks;
mod cache;
mod capacity;
pub mod cases;
mod contract;
mod error;
mod gram;
mod mixture;
pub mod naive;
pub mod sampling;
mod statistics;
mod step;

pub use activation::{Activation, ActivationScale, GateLimit};
pub use blocks::check_blocks;
pub use cache::{AttentionParams, CacheFormat, CacheShape, MAX_HEAD_DIM, PAGE_TOKENS};
pub use capacity::{Capacity, refill};
pub use contract::{Columns, Device, Done, Operand, Outputs, SLICE_ROWS};
pub use error::DeviceError;
pub use gram::Gram;
pub use mixture::{
    ExpertChoice, ExpertInput, HostRouting, MAX_EXPERTS, RoutedToken, RoutingRule, RoutingScoring,
    RoutingShape,
};
pub use statistics::Statistics;
pub use step::{HostStep, StepLayout, StepLimits};

/// Counts changes of what devices compute: programs of different numbers give different bits. Whoever goes on with what another program
/// began, a journal or a request, compares it.
pub const ARITHMETIC: u32 = 2;
