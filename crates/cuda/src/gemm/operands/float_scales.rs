//! The image of a layer with float group scales, which only `gemm_w4f_sm90` reads.

use dualgrain_format::{GroupSize, QuantizedLinear};
use half::f16;

use super::packing::{BLOCK_K, BLOCK_N, pack, replace_scale};
use crate::error::CudaError;

/// The image of a layer's codes with float scales `[N, groups]`.
pub(crate) fn pack_float_scales(layer: &QuantizedLinear, scales: &[f16]) -> Result<Vec<u8>, CudaError> {
    let k_blocks = layer.k().div_ceil(BLOCK_K);
    let expected = match layer.group_size() {
        GroupSize::Along(BLOCK_K) => layer.n() * k_blocks,
        _ => 0,
    };
    if scales.is_empty() || scales.len() != expected {
        return Err(CudaError::Length {
            what: "float scales of groups of 128",
            expected: 2 * expected,
            got: size_of_val(scales),
        });
    }
    let mut image = pack(layer)?;
    for row in 0..layer.n().next_multiple_of(BLOCK_N) {
        for group in 0..k_blocks {
            let scale = scales.get(row * k_blocks + group).copied().unwrap_or(f16::ZERO);
            replace_scale(&mut image, k_blocks, (row, group), scale.to_le_bytes());
        }
    }
    Ok(image)
}
