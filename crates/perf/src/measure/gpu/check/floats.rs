//! Checks float products against a bound of their rounding errors.

use dualgrain_cuda::{Blend, Buffer, CublasType, CudaError, Element, Expected, Stored};
use dualgrain_device::naive::Transposes;
use half::{bf16, f16};

use super::checker::{Checker, POISON, is_small};
use crate::error::PerfError;

/// A shape's float operands of one type and storage, with what their product must give.
pub(crate) struct FloatReference {
    expected: Expected,
    /// The product, if it is small.
    naive: Option<Vec<f64>>,
}

/// Buffers of a float product.
pub(crate) struct FloatBuffers<'a> {
    pub kind: CublasType,
    pub a: &'a Buffer,
    pub b: &'a Buffer,
    /// What is in D before a product that adds to it.
    pub c: &'a Buffer,
    pub d: &'a Buffer,
}

fn values(kind: CublasType, buffer: &Buffer, len: usize) -> Result<Vec<f64>, CudaError> {
    match kind {
        CublasType::F32 => {
            let mut all = vec![0f32; len];
            buffer.read(0, &mut all)?;
            Ok(all.into_iter().map(f64::from).collect())
        }
        CublasType::F16 | CublasType::Bf16 => {
            let mut all = vec![0u16; len];
            buffer.read(0, &mut all)?;
            let value = |bits| match kind {
                CublasType::F16 => f16::from_bits(bits).to_f64(),
                _ => bf16::from_bits(bits).to_f64(),
            };
            Ok(all.into_iter().map(value).collect())
        }
    }
}

fn naive_product(
    buffers: &FloatBuffers<'_>,
    transposes: Transposes,
    (m, n, k): (usize, usize, usize),
) -> Result<Vec<f64>, CudaError> {
    let (a, b) = (
        values(buffers.kind, buffers.a, m * k)?,
        values(buffers.kind, buffers.b, k * n)?,
    );
    let ((a_m, a_k), (b_k, b_n)) = (transposes.strides_a(m, k), transposes.strides_b(n, k));
    let mut product = vec![0.0; m * n];
    for (row, out) in product.chunks_exact_mut(n).enumerate() {
        for k_idx in 0..k {
            let factor = a[row * a_m + k_idx * a_k];
            for (column, out) in out.iter_mut().enumerate() {
                *out += factor * b[k_idx * b_k + column * b_n];
            }
        }
    }
    Ok(product)
}

/// Each output within its own rounding (4 units) and that of its sum (Higham and Mary's bound, as in `freivalds`).
fn naive_floats_are_right(
    product: &[f64],
    buffers: &FloatBuffers<'_>,
    (m, n, k): (usize, usize, usize),
    blend: Blend,
) -> Result<bool, CudaError> {
    let d = values(buffers.kind, buffers.d, m * n)?;
    let c = values(buffers.kind, buffers.c, m * n)?;
    let unit = match buffers.kind {
        CublasType::F32 => 2f64.powi(-24),
        CublasType::F16 => 2f64.powi(-11),
        CublasType::Bf16 => 2f64.powi(-8),
    };
    let (alpha, beta, k) = (f64::from(blend.alpha), f64::from(blend.beta), k as f64);
    let of_sum = 4.0 * 2f64.powi(-24) * k.sqrt() * k * alpha.abs();
    Ok(d.iter()
        .zip(product.iter().zip(&c))
        .all(|(&got, (&sum, &before))| {
            let should = alpha * sum + if beta == 0.0 { 0.0 } else { beta * before };
            // A library may cut K and add the parts up in the type of the output, and round the product before it adds:
            // parts count, not their sum, and a part of the sum has a standard deviation of sqrt(K) at most.
            let product = alpha.abs() * sum.abs().max(k.sqrt());
            let parts = product + (should - alpha * sum).abs();
            (got - should).abs() <= 4.0 * unit * parts + of_sum
        }))
}

impl Checker<'_> {
    pub fn floats(
        &self,
        buffers: &FloatBuffers<'_>,
        transposes: Transposes,
        (m, n, k): (usize, usize, usize),
        seed: u64,
    ) -> Result<FloatReference, PerfError> {
        let element = Element::Float(buffers.kind);
        let a_size = if transposes.a { (k, m) } else { (m, k) };
        let b_size = if transposes.b { (n, k) } else { (k, n) };
        let stored = (
            Stored::dense(buffers.a, element, a_size),
            Stored::dense(buffers.b, element, b_size),
        );
        let expected = self.freivalds.expect(transposes, stored, seed)?;
        let naive = match is_small((m, n, k)) {
            true => Some(naive_product(buffers, transposes, (m, n, k))?),
            false => None,
        };
        Ok(FloatReference { expected, naive })
    }

    /// Runs a product once on prepared buffers and checks it.
    pub fn floats_are_right(
        &self,
        reference: &FloatReference,
        buffers: &FloatBuffers<'_>,
        (m, n, k): (usize, usize, usize),
        blend: Blend,
        launch: &dyn Fn(usize) -> Result<(), CudaError>,
    ) -> Result<bool, PerfError> {
        let d = Stored::dense(buffers.d, Element::Float(buffers.kind), (m, n));
        let before = if blend.beta == 0.0 {
            buffers.d.fill(POISON)?;
            None
        } else {
            buffers.d.copy_from(buffers.c)?;
            Some(self.freivalds.before(d, &reference.expected)?)
        };
        launch(0)?;
        let wrong =
            self.freivalds
                .wrong_floats(d, buffers.kind, &reference.expected, blend, before.as_ref())?;
        if wrong > 0 {
            return Ok(false);
        }
        match &reference.naive {
            None => Ok(true),
            Some(product) => {
                naive_floats_are_right(product, buffers, (m, n, k), blend).map_err(PerfError::from)
            }
        }
    }
}
