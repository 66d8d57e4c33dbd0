//! The kernels' texts, inside the program.

use super::config::GemmKernel;

/// Files the kernels include.
pub(super) const HEADERS: &[(&str, &str)] = &[
    ("sm90.cuh", include_str!("cu/sm90.cuh")),
    ("w4a8.cuh", include_str!("cu/w4a8.cuh")),
    ("wgmma.cuh", include_str!("cu/wgmma.cuh")),
];

/// A kernel's own file.
pub(super) fn kernel(kernel: GemmKernel) -> &'static str {
    match kernel {
        GemmKernel::GemmW4a8Sm90 => include_str!("cu/gemm_w4a8_sm90.cu"),
    }
}
