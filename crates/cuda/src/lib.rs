//! NVIDIA GPUs, without a toolkit: nothing of CUDA is needed to build, everything is opened at run time.
//!
//! How a product gets from its shape to the card:
//!
//! 1. [`GemmProblem`] (`gemm/problem.rs`) says what is to be multiplied: M, N and K, the group size, what is written.
//! 2. [`enumerate`] (`gemm/selection/candidates.rs`) lists what could do it on a card ([`GpuInfo`]): rows of [`TABLE`], which
//!    holds every size of every kernel (`gemm/kernels/`), with all tiles whole or some cut along K.
//! 3. [`select`] (`gemm/selection/choice.rs`) takes one of them: that of the card's learned [`SelectionTable`], else the one
//!    that costs least by formula ([`Analytic`]).
//! 4. [`Jit`] (`compiler/`) compiles the kernel's text (`cu/`) for the card that is there, or finds it on disk.
//! 5. [`PackedLinear`] and [`QuantizedTokens`] (`gemm/operands/`) hold weights and activations as the kernels read them;
//!    [`Quantize`] (`rows/`) makes tokens of floats on the card.
//! 6. [`Gemm`] (`gemm/product.rs`) is all of it made ready, and puts it on the stream of a [`Gpu`] (`driver/`).
//!
//! ```no_run
//! use dualgrain_cuda::{CudaError, Gemm, GemmProblem, Gpu, Jit, PackedLinear, QuantizedTokens, select};
//! use dualgrain_format::QuantizedLinear;
//!
//! fn product(problem: GemmProblem, layer: &QuantizedLinear, codes: &[i8], scales: &[f32]) -> Result<Vec<f32>, CudaError> {
//!     let gpu = Gpu::open(0)?;
//!     let (m, n, k) = (problem.shape.m, problem.shape.n, problem.shape.k);
//!     let config = select(&problem, gpu.info()).expect("a kernel for this card");
//!     let gemm = Gemm::new(&Jit::new(&gpu)?, &gpu, problem, config)?;
//!     let weights = PackedLinear::new(&gpu, layer)?;
//!     let tokens = QuantizedTokens::upload(&gpu, codes, scales, k)?;
//!     let d = gpu.filled(4 * m * n, 0)?; // the problem's output is F32
//!     gemm.launch(&weights, &tokens, &d)?;
//!     let mut values = vec![0.0; m * n];
//!     d.read(0, &mut values)?;
//!     Ok(values)
//! }
//! ```
//!
//! The other rooms serve what is measured: `check/` makes random operands and judges whole products on the card,
//! `measurement/` reads clocks and meters, `rivals/` holds the products of others.

mod attention;
mod check;
mod compiler;
mod cu;
mod device;
mod driver;
mod error;
mod experts;
mod fit;
mod gemm;
mod linear;
mod measurement;
mod rivals;
mod rows;
mod sampling;
mod statistics;

pub use attention::{
    Attended, Attention, AttentionKernel, AttentionWorkspace, CacheWrite, PagedCache, Ring, RingTask,
    RotatedQueries, ScoreRule, StepTokens, attention_source,
};
pub use check::{
    Blend, Element, Expected, Freivalds, RandomOperands, Stored, Wrong, freivalds_sources, operand_sources,
};
pub use compiler::{CACHE_VARIABLE, Cache, Jit, Key, Source, compiler_version};
pub use device::{
    CudaCache, CudaDevice, CudaIndices, CudaLinear, CudaMatrix, CudaQuantized, CudaStep, CudaTable,
    KernelChoice, OperationTime, kernel_choices, workspace_bytes,
};
pub use driver::{
    Arena, Buffer, Gpu, GpuInfo, Graph, Kernel, KernelUse, Launch, driver_version, gpus, kernels,
};
pub use error::CudaError;
pub use experts::{
    Combine, ExpertKernel, ExpertLinear, ExpertOperand, ExpertTable, ExpertWeightsKind, GemmExperts,
    TokenRouting, combine_source, gemm_experts_sources, routing_sources,
};
pub use fit::RowPart;
pub use gemm::{
    Analytic, BLOCK_K, BLOCK_N, Cost, FLOAT_SCALES_TABLE, Gemm, GemmConfig, GemmProblem, GemmSm80, GemmSm90,
    GemvSm90, Geometry, Output, PackedLinear, QuantizedTokens, SELECTION_VARIABLE, SelectionError,
    SelectionTable, Split, TABLE, TokenCodes, Variant, block_bytes, choose, enumerate, enumerate_all,
    float_scales_cut, groups_per_block, image_bytes, pack, select, stand_ins,
};
pub use linear::{
    FloatKernel, FloatKind, FloatPacker, GemmFloat, GemmW8A8, LinearFloat, LinearW8, W8Kernel, W8Packer,
    gemm_float_sources, gemm_w8a8_sm90_sources, gemm_w8a8_sources,
};
pub use measurement::{
    Nvml, NvmlDevice, Steady, Utilization, read_bytes_per_s, read_memory_source, rotation_copies,
    throttle_words, time_once_s, times_s,
};
pub use rivals::{
    Cublas, CublasBf16, CublasLtInt8, CublasType, Int8Product, SGEMM_TILES, SgemmTiled, sgemm_source,
};
pub use rows::{
    Before, GateQuantize, GatherRows, Hadamard, Input, NormRows, NormRule, NormWeights, Pointwise,
    PointwiseRows, Quantize, Rope, TableType, gate_quantize_source, gather_rows_source, hadamard_source,
    norm_source, pointwise_source, quantize_rows_sources, quantize_source, rope_source,
};
pub use sampling::{
    LastTokens, LogSoftmax, MOST_TOP_LOGPROBS, SampleRows, Sampler, Sampling, last_tokens_source,
    log_softmax_source, sample_source,
};
pub use statistics::{
    AbsMax, ComputeOutputErrors, GramMatrix, GramUpdate, Maxima, OutputErrors, statistics_sources,
};
