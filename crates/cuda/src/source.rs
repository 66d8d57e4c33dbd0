//! The kernels' texts, inside the program.

use super::config::Variant;

/// Files the kernels include.
pub(super) const HEADERS: &[(&str, &str)] = &[
    ("gemm_consumer.cuh", include_str!("cu/gemm_consumer.cuh")),
    ("gemm_float.cuh", include_str!("cu/gemm_float.cuh")),
    ("gemm_output.cuh", include_str!("cu/gemm_output.cuh")),
    ("gemm_tile.cuh", include_str!("cu/gemm_tile.cuh")),
    // gemm_w4f_sm90 is this text with a macro.
    ("gemm_w4a8_sm90.cu", include_str!("cu/gemm_w4a8_sm90.cu")),
    ("sm90.cuh", include_str!("cu/sm90.cuh")),
    ("w4a8.cuh", include_str!("cu/w4a8.cuh")),
    ("wgmma.cuh", include_str!("cu/wgmma.cuh")),
];

/// The quantization's own file.
pub(super) const QUANTIZE: &str = include_str!("cu/quantize_per_token.cu");

/// A product's own file.
pub(super) fn kernel(variant: &Variant) -> &'static str {
    match variant {
        Variant::Gemm(_) => include_str!("cu/gemm_w4a8_sm90.cu"),
        Variant::Gemv(_) => include_str!("cu/gemv_w4a8_sm90.cu"),
        Variant::Ampere(_) => include_str!("cu/gemm_w4a8_sm80.cu"),
        Variant::FloatScales(_) => include_str!("cu/gemm_w4f_sm90.cu"),
    }
}
