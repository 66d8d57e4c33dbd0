//! The CPU device.
//!
//! `isa` asks the machine once and stamps generic code out per instruction set; `pool` shares work between threads;
//! each operation has a file that begins with its idea. Float operations are written once over 16 lanes and compiled
//! for every instruction set; only the integer products have a hand-written kernel per instruction set.

mod attention;
mod device;
mod float;
mod gemm_w4a8;
mod isa;
mod kv_cache;
mod machine_peak;
mod memory;
mod rows;
#[cfg(test)]
mod sentinels;
mod tensor;

pub use device::cpu_device::CpuDevice;
pub use device::linear::Linear;
pub use isa::{Isa, available};
pub use kv_cache::storage::Cache;
pub use machine_peak::{MachinePeak, last_level_cache_bytes};
pub use tensor::matrix::Matrix;
pub use tensor::quantized::Quantized;
pub use tensor::table::Table;
