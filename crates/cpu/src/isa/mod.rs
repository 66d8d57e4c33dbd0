//! Instruction sets: the only place that asks the machine what it has.

#[cfg(target_arch = "x86_64")]
mod amx;
mod instruction_set;
mod per_isa;

pub(crate) use instruction_set::not_available;
pub use instruction_set::{Isa, available};
pub(crate) use per_isa::per_isa;
