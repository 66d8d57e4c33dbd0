//! Float products on the device's own tiles: every output is one chain of fused multiply-adds over k in order, so that
//! device, instruction set and number of threads make no difference to a bit.

use dualgrain_device::{Operand, Statistics};
use dualgrain_format::{FloatLinear, FloatValues, LinearWeights};

use crate::error::QuantError;

/// `a b^T` `[M,N]` of `a` `[M,K]` and `b` `[N,K]`.
///
/// # Errors
/// The device failed, or a value is not finite.
pub fn product<D: Statistics>(device: &D, a: &[f32], b: Vec<f32>, k: usize) -> Result<Vec<f32>, QuantError> {
    let (m, n) = (a.len() / k, b.len() / k);
    if m == 0 || n == 0 {
        return Ok(Vec::new());
    }
    let linear = FloatLinear::new(n, k, FloatValues::F32(b), None)?;
    let linear = device.pack(LinearWeights::Float(linear))?;
    let (mut left, mut out) = (device.matrix(m, k)?, device.matrix(m, n)?);
    device.upload(&mut left, a)?;
    device.gemm(&mut out, Operand::Float(&left), &linear)?;
    let mut values = vec![0.0; m * n];
    device.download(&out, 0..m, &mut values)?;
    Ok(values)
}

/// The first `width` columns of `rows` `[M,K]`.
pub fn leading_columns(rows: &[f32], k: usize, width: usize) -> Vec<f32> {
    let mut leading = Vec::with_capacity(rows.len() / k * width);
    rows.chunks_exact(k)
        .for_each(|row| leading.extend_from_slice(&row[..width]));
    leading
}
