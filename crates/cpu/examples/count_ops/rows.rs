//! Operations on rows of a matrix.

use dualgrain_cpu::CpuDevice;
use dualgrain_device::{Activation, ActivationScale, Device};

use crate::attention::HEAD_DIM;
use crate::operands::matrix;
use crate::operation::{Call, Operation};

/// Operations on rows of `x[m,k]`.
pub fn rows(shape: (usize, usize)) -> impl Iterator<Item = Operation> {
    quantizing(shape).into_iter().chain(others(shape))
}

fn of_rows(
    name: &'static str,
    (m, k): (usize, usize),
    units: usize,
    prepare: impl Fn(CpuDevice) -> Call + 'static,
) -> Operation {
    Operation {
        name,
        shape: format!("{m}x{k}"),
        units,
        unit: "element",
        prepare: Box::new(prepare),
    }
}

/// Quantization, and the norm before it.
fn quantizing((m, k): (usize, usize)) -> [Operation; 3] {
    [
        of_rows("rows_quantize", (m, k), m * k, move |b: CpuDevice| -> Call {
            let (x, mut out) = (matrix(&b, m, k), b.quantized(m, k).unwrap());
            Box::new(move || b.quantize(&mut out, &x, ActivationScale::PerToken).unwrap())
        }),
        of_rows("rows_rms_norm", (m, k), m * k, move |b| {
            let (x, weight, mut out) = (matrix(&b, m, k), matrix(&b, 1, k), b.matrix(m, k).unwrap());
            Box::new(move || b.rms_norm(&mut out, &x, &weight, 1e-5).unwrap())
        }),
        of_rows("rows_rms_norm_quantize", (m, k), m * k, move |b| {
            let (x, weight) = (matrix(&b, m, k), matrix(&b, 1, k));
            let (mut out, mut h) = (b.quantized(m, k).unwrap(), b.matrix(m, k).unwrap());
            let scale = ActivationScale::PerToken;
            Box::new(move || {
                b.rms_norm_quantize(&mut out, &mut h, &x, &weight, 1e-5, scale)
                    .unwrap()
            })
        }),
    ]
}

fn others((m, k): (usize, usize)) -> [Operation; 3] {
    [
        of_rows("rows_gated_silu", (m, k), m * k / 2, move |b| {
            let (x, mut out) = (matrix(&b, m, k), b.matrix(m, k / 2).unwrap());
            Box::new(move || b.gated(&mut out, &x, Activation::Silu).unwrap())
        }),
        of_rows("rows_rope", (m, k), m * k, move |b| {
            let (mut x, angles) = (matrix(&b, m, k), matrix(&b, m, HEAD_DIM));
            Box::new(move || b.rope(&mut x, 0..k, HEAD_DIM, &angles).unwrap())
        }),
        of_rows("rows_log_softmax", (m, k), m * k, move |b| {
            let mut x = matrix(&b, m, k);
            Box::new(move || b.log_softmax(&mut x).unwrap())
        }),
    ]
}
