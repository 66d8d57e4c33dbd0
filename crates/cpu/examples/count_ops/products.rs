//! Integer products.

use dualgrain_cpu::{CpuDevice, Quantized};
use dualgrain_device::{Activation, Device, Operand};
use dualgrain_format::LinearWeights;

use crate::operands::{matrix, quantized, w4};
use crate::operation::Operation;

pub fn product(
    name: &'static str,
    (m, n, k): (usize, usize, usize),
    make: fn(usize, usize) -> LinearWeights,
) -> Operation {
    Operation {
        name,
        shape: format!("{m}x{n}x{k}"),
        units: m * n * k,
        unit: "multiply-add",
        prepare: Box::new(move |device| {
            let (a, weights) = (
                activations(&device, m, k),
                device.pack(make(n, k)).expect("packs"),
            );
            let mut out = device.matrix(m, n).unwrap();
            Box::new(move || device.gemm(&mut out, Operand::Int8(&a), &weights).unwrap())
        }),
    }
}

fn activations(device: &CpuDevice, m: usize, k: usize) -> Quantized {
    quantized(device, &matrix(device, m, k))
}

/// Gate and up of a feed-forward block.
pub fn gated_product((m, n, k): (usize, usize, usize)) -> Operation {
    Operation {
        name: "gemm_w4a8_gated",
        shape: format!("{m}x{n}x{k}"),
        units: m * n * k,
        unit: "multiply-add",
        prepare: Box::new(move |device| {
            let (a, weights) = (activations(&device, m, k), device.pack(w4(n, k)).expect("packs"));
            let (mut out, mut wide) = (device.matrix(m, n / 2).unwrap(), device.matrix(m, n).unwrap());
            Box::new(move || {
                device
                    .gemm_gated(&mut out, &mut wide, Operand::Int8(&a), &weights, Activation::Silu)
                    .unwrap();
            })
        }),
    }
}

/// A product that is added to the stream.
pub fn added_product((m, n, k): (usize, usize, usize)) -> Operation {
    Operation {
        name: "gemm_w4a8_added",
        shape: format!("{m}x{n}x{k}"),
        units: m * n * k,
        unit: "multiply-add",
        prepare: Box::new(move |device| {
            let (a, weights) = (activations(&device, m, k), device.pack(w4(n, k)).expect("packs"));
            let (mut x, mut y) = (matrix(&device, m, n), device.matrix(m, n).unwrap());
            Box::new(move || {
                device
                    .gemm_add(&mut x, &mut y, Operand::Int8(&a), &weights)
                    .unwrap()
            })
        }),
    }
}
