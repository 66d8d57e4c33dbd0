//! The kernels' texts, inside the program.

use crate::gemm::Variant;

/// Files the kernels include.
pub(crate) const HEADERS: &[(&str, &str)] = &[
    ("gemm_consumer.cuh", include_str!("gemm/gemm_consumer.cuh")),
    ("gemm_float.cuh", include_str!("gemm/gemm_float.cuh")),
    ("gemm_output.cuh", include_str!("gemm/gemm_output.cuh")),
    ("gemm_tile.cuh", include_str!("gemm/gemm_tile.cuh")),
    // gemm_w4f_sm90 is this text with a macro.
    ("gemm_w4a8_sm90.cu", include_str!("gemm/gemm_w4a8_sm90.cu")),
    ("sm90.cuh", include_str!("sm90.cuh")),
    ("w4a8.cuh", include_str!("w4a8.cuh")),
    ("wgmma.cuh", include_str!("gemm/wgmma.cuh")),
];

/// The quantization's own file.
pub(crate) const QUANTIZE: &str = include_str!("quantize_per_token.cu");

/// A product's own file.
pub(crate) fn kernel(variant: &Variant) -> &'static str {
    match variant {
        Variant::Gemm(_) => include_str!("gemm/gemm_w4a8_sm90.cu"),
        Variant::Gemv(_) => include_str!("gemm/gemv_w4a8_sm90.cu"),
        Variant::Ampere(_) => include_str!("gemm/gemm_w4a8_sm80.cu"),
        Variant::FloatScales(_) => include_str!("gemm/gemm_w4f_sm90.cu"),
    }
}
