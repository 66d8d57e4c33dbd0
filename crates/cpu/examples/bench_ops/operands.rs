//! Operands of products and other operations, made of random bits, and steps.

use std::ops::Range;

use dualgrain_cpu::{CpuDevice, Matrix, Quantized};
use dualgrain_device::{ActivationScale, Device, HostStep, StepLayout, StepLimits};
use dualgrain_format::{GroupSize, Int8Linear, LinearWeights, QuantizedLinear, QuantizedParts};

pub fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
}

pub fn floats(len: usize) -> Vec<f32> {
    let mut next = random(len as u64);
    (0..len)
        .map(|_| (next() & 0xffff) as f32 / 32_768.0 - 1.0)
        .collect()
}

/// A layer with zero point 8 and group scales that keep the int8 guard.
pub fn w4(n: usize, k: usize) -> LinearWeights {
    grouped_w4(n, k, GroupSize::Along(128))
}

pub fn grouped_w4(n: usize, k: usize, group_size: GroupSize) -> LinearWeights {
    let (mut next, groups) = (random(7), group_size.num_groups(k));
    let parts = QuantizedParts {
        q: (0..n * k / 2).map(|_| next() as u8).collect(),
        // An odd number of groups ends with a nibble of padding.
        zero: [vec![0x88; groups / 2], vec![0x08; groups % 2]]
            .concat()
            .repeat(n),
        s2: (0..n * groups).map(|_| 1 + (next() % 15) as u8).collect(),
        s1: vec![0.01; n],
        bias: None,
        ta: None,
    };
    LinearWeights::W4(QuantizedLinear::new((n, k), group_size, parts).expect("valid layer"))
}

pub fn w8(n: usize, k: usize) -> LinearWeights {
    let mut next = random(9);
    let w8 = (0..n * k).map(|_| next() as i8).map(|w| w.max(-127)).collect();
    LinearWeights::W8(Int8Linear::new((n, k), w8, vec![0.01; n], None, None).expect("valid layer"))
}

pub fn matrix(device: &CpuDevice, rows: usize, columns: usize) -> Matrix {
    let mut x = device.matrix(rows, columns).unwrap();
    device.upload(&mut x, &floats(rows * columns)).unwrap();
    x
}

pub fn quantized(device: &CpuDevice, x: &Matrix) -> Quantized {
    let mut a = device.quantized(device.rows(x), device.columns(x)).unwrap();
    device.quantize(&mut a, x, ActivationScale::PerToken).unwrap();
    a
}

/// A step of the tokens at these positions of one sequence, whose pages are the first ones.
pub fn one_sequence(device: &CpuDevice, positions: Range<usize>, num_pages: usize) -> HostStep {
    let limits = StepLimits {
        tokens: positions.len(),
        sequences: 1,
        pages_per_sequence: num_pages,
    };
    let layout = StepLayout {
        sequences: &vec![0; positions.len()],
        positions: &positions.map(|position| position as u32).collect::<Vec<_>>(),
        page_tables: &[(0..num_pages as u32).collect()],
    };
    let mut step = device.step(limits).unwrap();
    device.upload_step(&mut step, &layout).unwrap();
    step
}
