//! NVIDIA GPUs, without a toolkit: nothing of CUDA is needed to build, everything is opened at run time.
//!
//! The path of a product: `gemm` lists what exists and what could run a shape, says how long each would take (or what a
//! learned table of the card says instead), `compiler` compiles the kernel chosen for the card that is there and keeps it
//! on disk, `gemm` lays the weights out as the kernels read them, `driver` puts it on the card. The kernels themselves are
//! in `cu/`.

mod check;
mod compiler;
mod cu;
mod driver;
mod error;
mod gemm;
mod measurement;
mod rivals;
mod rows;

pub use check::{
    Blend, Element, Expected, Freivalds, RandomOperands, Stored, Wrong, freivalds_sources, operand_sources,
};
pub use compiler::{CACHE_VARIABLE, Cache, Jit, Key, Source, compiler_version};
pub use driver::{
    Arena, Buffer, Gpu, GpuInfo, Graph, Kernel, KernelUse, Launch, driver_version, gpus, kernels,
};
pub use error::CudaError;
pub use gemm::{
    Analytic, BLOCK_K, BLOCK_N, Cost, FLOAT_SCALES_TABLE, Gemm, GemmConfig, GemmProblem, GemmSm80, GemmSm90,
    GemvSm90, Geometry, Output, PackedLinear, QuantizedTokens, SELECTION_VARIABLE, SelectionError,
    SelectionTable, Split, TABLE, TokenCodes, Variant, block_bytes, choose, enumerate, enumerate_all,
    float_scales_cut, groups_per_block, image_bytes, pack, select, stand_ins,
};
pub use measurement::{
    Nvml, NvmlDevice, Steady, Utilization, read_bytes_per_s, read_memory_source, rotation_copies,
    throttle_words, time_once_s, times_s,
};
pub use rivals::{
    Cublas, CublasBf16, CublasLtInt8, CublasType, Int8Product, SGEMM_TILES, SgemmTiled, sgemm_source,
};
pub use rows::{Before, Input, Quantize, quantize_source};
