//! The CPU device.
//!
//! | room | what is in it |
//! |---|---|
//! | `device` | the CPU as a device: instruction set, threads, packed layers, the list of operations |
//! | `isa` | instruction sets: which there are, which this machine has, how one source is compiled for each |
//! | `memory` | buffers on cache lines and in huge pages |
//! | `tensor` | matrices, quantized activations, embedding tables |
//! | `rows` | operations on rows: norms, quantization, rotation, activations, log-softmax |
//! | `float` | 16 lanes, the float tile, and products made of it |
//! | `gemm_w4a8` | integer products: a kernel for each instruction set |
//! | `kv_cache` | paged keys and values |
//! | `attention` | attention over them |
//!
//! Float operations are written once over 16 lanes and compiled for every instruction set; only the integer products have
//! a hand-written kernel per instruction set.

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
