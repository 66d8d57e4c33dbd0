//! A sweep on the CPU.

mod operands;
mod rapl;
mod small_ops;
mod sweep;

pub use sweep::profile_cpu;
