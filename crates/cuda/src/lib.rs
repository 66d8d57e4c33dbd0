//! NVIDIA GPUs, without a toolkit: nothing of CUDA is needed to build, everything is opened at run time.
//!
//! The path of a product: `config` lists what exists and what could run a shape, `cost` says how long each would take (and
//! `selection` what a learned table of the card says instead),
//! `jit` compiles the kernel chosen for the card that is there (`cache` keeps it on disk), `packing` lays the weights
//! out as the kernels read them, `launch` puts it on the card. The kernels themselves are in `cu/`.

mod cache;
mod ceiling;
mod config;
mod cost;
mod cubin;
mod cublas;
mod cublas_layouts;
mod device;
mod driver;
mod error;
mod float_scales;
mod freivalds;
mod gemm;
mod gemv;
mod graph;
mod jit;
mod launch;
mod library;
mod nvml;
mod nvrtc;
mod operands;
mod packing;
mod quantize;
mod selection;
mod sgemm;
mod sm80;
mod sm90;
mod source;
mod steady;
mod timing;

pub use cache::{CACHE_VARIABLE, Cache, Key};
pub use ceiling::{read_bytes_per_s, read_memory_source};
pub use config::{
    Cost, GemmConfig, GemmProblem, Geometry, Output, Split, TABLE, Variant, choose, enumerate, enumerate_all,
    stand_ins,
};
pub use cost::Analytic;
pub use cubin::{KernelUse, kernels};
pub use cublas::{CublasBf16, CublasLtInt8, Int8Product};
pub use cublas_layouts::{Cublas, CublasType};
pub use device::{Buffer, Device, DeviceInfo, devices, driver_version};
pub use error::CudaError;
pub use float_scales::{FLOAT_SCALES_TABLE, float_scales_cut};
pub use freivalds::{Blend, Element, Expected, Freivalds, Stored, Wrong, freivalds_sources};
pub use gemm::{Gemm, PackedLinear, QuantizedTokens, TokenCodes};
pub use gemv::GemvSm90;
pub use graph::Graph;
pub use jit::{Jit, Kernel, Source, compiler_version};
pub use launch::Launch;
pub use nvml::{Card, Nvml, Utilization, throttle_words};
pub use operands::{Arena, RandomOperands, operand_sources};
pub use packing::{BLOCK_K, BLOCK_N, GroupLength, image_bytes, pack};
pub use quantize::{Before, Input, Quantize, quantize_source};
pub use selection::{SELECTION_VARIABLE, SelectionError, SelectionTable, select};
pub use sgemm::{SGEMM_TILES, SgemmTiled, sgemm_source};
pub use sm80::GemmSm80;
pub use sm90::GemmSm90;
pub use steady::{Steady, time_once_s};
pub use timing::{rotation_copies, times_s};
