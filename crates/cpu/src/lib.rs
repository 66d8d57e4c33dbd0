//! The CPU device.
//!
//! `isa` asks the machine once and stamps generic code out per instruction set; `pool` shares work between threads;
//! each operation has a file that begins with its idea. Float operations are written once over 16 lanes and compiled
//! for every instruction set; only the integer products have a hand-written kernel per instruction set.

mod aligned;
#[cfg(target_os = "linux")]
mod arena;
mod attention;
mod attention_float;
mod attention_int8;
mod attention_int8_tile;
#[cfg(target_arch = "x86_64")]
mod attention_int8_x86;
mod cache;
mod device;
mod elementwise;
mod epilogue;
mod gemm_float;
mod gemm_w4a8;
#[cfg(target_arch = "x86_64")]
mod gemm_w4a8_amx;
#[cfg(target_arch = "x86_64")]
mod gemm_w4a8_avx2;
#[cfg(target_arch = "x86_64")]
mod gemm_w4a8_avx512vnni;
#[cfg(target_arch = "x86_64")]
mod gemm_w4a8_avxvnni;
mod gemm_w4a8_portable;
mod gemm_w4a8_tile;
mod gram;
mod interleave;
mod isa;
#[cfg(test)]
mod marks;
mod norm;
mod norm_quantize;
mod probe;
mod quadratic;
mod quantize;
mod rope;
mod simd;
mod softmax;
mod tensor;
mod tile;

pub use cache::Cache;
pub use device::{CpuDevice, Linear};
pub use isa::{Isa, available};
pub use probe::{MachinePeak, last_level_cache_bytes};
pub use tensor::{Matrix, Quantized, Table};
