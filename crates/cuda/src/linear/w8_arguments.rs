//! Arguments of products with INT8 weights.

use super::linear_w8::LinearW8;
use super::w8_image::CHUNK_K;
use crate::driver::Buffer;
use crate::error::CudaError;
use crate::fit::{at_least, exactly, room};
use crate::gemm::QuantizedTokens;

/// Mirrors `W8Args` of cu/linear/w8_image.cuh.
#[repr(C)]
pub(super) struct W8Args {
    pub(super) weights: u64,
    pub(super) codes: u64,
    pub(super) scales: u64,
    pub(super) s1: u64,
    pub(super) bias: u64,
    pub(super) out: u64,
    pub(super) m: i32,
    pub(super) n: i32,
    pub(super) row_bytes: i32,
    pub(super) chunks: i32,
}

/// The arguments of a product, whose sizes fit.
pub(super) fn arguments(
    linear: &LinearW8,
    tokens: &QuantizedTokens,
    m: usize,
    out: &Buffer,
) -> Result<W8Args, CudaError> {
    let ((n, k), (capacity, columns)) = (linear.shape(), tokens.shape());
    exactly("columns of the tokens", k, columns)?;
    room("tokens", m, capacity)?;
    at_least("output of an INT8 product", 4 * m * n, out)?;
    let ((weights, s1, bias), (codes, _, scales)) = (linear.addresses(), tokens.addresses());
    Ok(W8Args {
        weights,
        codes,
        scales,
        s1,
        bias,
        out: out.address(),
        m: m as i32,
        n: n as i32,
        row_bytes: tokens.row_bytes() as i32,
        chunks: k.div_ceil(CHUNK_K) as i32,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_size_of_the_kernels_structure() {
        assert_eq!(size_of::<W8Args>(), 64);
    }
}
