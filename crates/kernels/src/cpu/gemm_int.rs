//! Integer products of INT8 activations with W8 or W4 weights.

use dualgrain_format::{Int8Linear, QuantizedLinear};

use super::isa::{Isa, per_isa};
use super::pool::Pool;
use super::share::Shared;
use super::tensor::Quantized;
use crate::naive::epilogue;

/// Rows a task takes.
const TASK_COLUMNS: usize = 32;

/// Int8 weights [N,K] with what the epilogue needs.
#[derive(Debug)]
pub(crate) struct PackedInt {
    n: usize,
    k: usize,
    w8: Vec<i8>,
    s1: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl PackedInt {
    pub(crate) fn pack_w4(linear: &QuantizedLinear) -> Self {
        let (n, k) = (linear.n(), linear.k());
        let mut w8 = vec![0; n * k];
        for (row, w8) in w8.chunks_exact_mut(k).enumerate() {
            linear.w8_row(row, w8);
        }
        Self {
            n,
            k,
            w8,
            s1: linear.s1().to_vec(),
            bias: linear.bias().map(<[f32]>::to_vec),
        }
    }

    pub(crate) fn pack_w8(linear: &Int8Linear) -> Self {
        Self {
            n: linear.n(),
            k: linear.k(),
            w8: linear.w8().to_vec(),
            s1: linear.s1().to_vec(),
            bias: linear.bias().map(<[f32]>::to_vec),
        }
    }

    pub(crate) fn n(&self) -> usize {
        self.n
    }

    pub(crate) fn bytes(&self) -> usize {
        self.w8.len() + 4 * self.s1.len()
    }
}

pub(crate) fn gemm(isa: Isa, pool: &Pool, a: &Quantized, weights: &PackedInt, d: &mut [f32]) {
    let (n, k) = (weights.n, weights.k);
    assert_eq!(
        (a.columns, d.len()),
        (k, a.rows * n),
        "integer product {}x{n}x{k}",
        a.rows
    );
    let d = Shared::new(d);
    pool.run(n.div_ceil(TASK_COLUMNS), |task| {
        for row in 0..a.rows {
            for column in task * TASK_COLUMNS..((task + 1) * TASK_COLUMNS).min(n) {
                let acc = dot(isa, &a.codes(row)[..k], &weights.w8[column * k..(column + 1) * k]);
                let bias = weights.bias.as_ref().map(|bias| bias[column]);
                // SAFETY: this task alone writes this column.
                let out = unsafe { d.range(row * n + column..row * n + column + 1) };
                out[0] = epilogue(acc, a.scales[row], weights.s1[column], bias);
            }
        }
    });
}

per_isa! {
    fn dot(a8: &[i8], w8: &[i8]) -> i32 = dot_lanes
}

#[inline(always)]
fn dot_lanes(a8: &[i8], w8: &[i8]) -> i32 {
    a8.iter()
        .zip(w8)
        .map(|(&a, &w)| i32::from(i16::from(a) * i16::from(w)))
        .sum()
}
