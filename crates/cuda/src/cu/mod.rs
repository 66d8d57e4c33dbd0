//! The kernels' texts, inside the program. Part of the key that compiled kernels are kept under: a changed byte means that all
//! of them are compiled again, and that the measured tables speak of other kernels.

/// Files the kernels include.
pub(crate) const HEADERS: &[(&str, &str)] = &[
    ("gemm_consumer.cuh", include_str!("gemm/gemm_consumer.cuh")),
    ("gemm_float.cuh", include_str!("gemm/gemm_float.cuh")),
    ("gemm_output.cuh", include_str!("gemm/gemm_output.cuh")),
    ("gemm_tile.cuh", include_str!("gemm/gemm_tile.cuh")),
    // gemm_w4f_sm90 is this text with a macro.
    ("gemm_w4a8_sm90.cu", GEMM_W4A8_SM90),
    ("sm90.cuh", include_str!("sm90.cuh")),
    ("w4a8.cuh", include_str!("w4a8.cuh")),
    ("wgmma.cuh", include_str!("gemm/wgmma.cuh")),
];

/// The product on Ampere and later.
pub(crate) const GEMM_W4A8_SM80: &str = include_str!("gemm/gemm_w4a8_sm80.cu");
/// The product on Hopper.
pub(crate) const GEMM_W4A8_SM90: &str = include_str!("gemm/gemm_w4a8_sm90.cu");
/// The same with float group scales.
pub(crate) const GEMM_W4F_SM90: &str = include_str!("gemm/gemm_w4f_sm90.cu");
/// The product for few tokens.
pub(crate) const GEMV_W4A8_SM90: &str = include_str!("gemm/gemv_w4a8_sm90.cu");
/// The quantization of activations.
pub(crate) const QUANTIZE_PER_TOKEN: &str = include_str!("quantize_per_token.cu");
/// Random operands, and outputs compared with sums.
pub(crate) const OPERANDS: &str = include_str!("operands.cu");
/// Freivalds' check.
pub(crate) const FREIVALDS: &str = include_str!("freivalds.cu");
/// The FP32 product of the GPPerf paper.
pub(crate) const SGEMM_TILED: &str = include_str!("sgemm_tiled.cu");
/// Reading as fast as the memory gives.
pub(crate) const READ_MEMORY: &str = include_str!("read_memory.cu");
