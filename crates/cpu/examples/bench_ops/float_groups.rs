//! What float group scales cost: a kernel made for the comparison, as good as we can, and nothing else uses it.
//!
//! 4-bit codes with an f32 scale and a zero point per group of 128, INT8 activations. Each group's sum
//! `sum_k a8 * (q - zero)` is exact in i32; then it becomes a float and joins the others in order,
//! `sum = fma(group as f32, scale, sum)` from 0, and `d = sum * ta`. The rest is as in our products, or kinder: panels of 16
//! rows of N, nibbles in the same lines, weights in huge pages, panels widened to bytes once per 512 k and 240 (AMX:
//! 512) tokens, tiles as large as sums of both kinds leave room for. Kinder: sums of codes are there beforehand, codes
//! lie exactly as each tile reads them, and D is written in blocks of 64 columns, not in rows far apart.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512vnni;
mod layout;
mod path;

use dualgrain_cpu::CpuDevice;

use crate::operands::{matrix, quantized, random};
use crate::shapes::{LAYERS, ROTATION_BYTES, SQUARE};
use crate::table::Table;
use layout::{Activations, COLUMNS, GROUP, Weights, in_huge_pages};
use path::Path;

/// `d` is `[blocks of rows][N / 64][rows][64]`.
fn gemm(device: &CpuDevice, a: &Activations, weights: &Weights, copy: usize, d: &mut [f32]) {
    let (rows, blocks) = (a.block_rows(), weights.n / COLUMNS);
    device.pool().for_each_chunk(d, rows * COLUMNS, |chunk, d| {
        let (row_block, column_block) = (chunk / blocks, chunk % blocks);
        let rows = row_block * rows..(row_block + 1) * rows;
        let panels = weights.panels(copy, column_block);
        match a.path {
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => avx2::block(a, rows, panels, d),
            #[cfg(target_arch = "x86_64")]
            Path::Nibbles => avx512vnni::nibbles(a, rows, panels, d),
            #[cfg(target_arch = "x86_64")]
            Path::Widened => avx512vnni::widened(a, rows, panels, d),
            #[cfg(target_arch = "x86_64")]
            Path::Tiles => amx::block(a, rows, panels, d),
            #[cfg(not(target_arch = "x86_64"))]
            path => unreachable!(
                "{path:?} needs x86-64: {rows:?} of {}, {}",
                panels.groups,
                d.len()
            ),
        }
    });
}

/// The specification: an output of the first copy.
fn naive(codes: &[i8], ta: f32, weights: &Weights, row: usize) -> f32 {
    let sum = codes
        .chunks_exact(GROUP)
        .enumerate()
        .fold(0.0, |sum: f32, (group, codes)| {
            let (scale, zero) = weights.group(row, group);
            let q = |k: usize| i32::from(weights.q(row, group * GROUP + k)) - i32::from(zero);
            let exact: i32 = codes.iter().enumerate().map(|(k, a)| i32::from(*a) * q(k)).sum();
            (exact as f32).mul_add(scale, sum)
        });
    sum * ta
}

/// Every output of small products, bit for bit.
fn check(device: &CpuDevice) {
    let (n, k) = (2 * COLUMNS, 9 * GROUP);
    let weights = Weights::random((n, k), 1);
    for m in [1, 2, 7, 14, 23, 250, 530] {
        let Some(path) = Path::of(device.isa(), m) else {
            return;
        };
        let mut next = random(m as u64);
        let extremes = [127, -127];
        let mut code = |row: usize| match row % 5 {
            0 => extremes[(next() & 1) as usize],
            1 => 127,
            _ => (next() as i8).max(-127),
        };
        let rows: Vec<(Vec<i8>, f32)> = (0..m)
            .map(|row| ((0..k).map(|_| code(row)).collect(), 0.25 + row as f32 / 3.0))
            .collect();
        let a = Activations::new(path, &rows);
        let block = a.block_rows();
        let mut d = vec![f32::NAN; m.div_ceil(block) * block * n];
        gemm(device, &a, &weights, 0, &mut d);
        for (row, (codes, ta)) in rows.iter().enumerate() {
            for column in 0..n {
                let place = (row / block * (n / COLUMNS) + column / COLUMNS) * block + row % block;
                let got = d[place * COLUMNS + column % COLUMNS];
                let expected = naive(codes, *ta, &weights, column);
                assert!(
                    got.to_bits() == expected.to_bits(),
                    "{path:?} {m}x{n}x{k} at {row}, {column}: {got}, expected {expected}"
                );
            }
        }
    }
}

/// Rows `gemm_w4f` of the table.
pub fn float_groups(device: &CpuDevice, table: &mut Table) {
    if !table.wants("gemm_w4f") || Path::of(device.isa(), 1).is_none() {
        return;
    }
    check(device);
    for (n, k) in LAYERS.into_iter().chain([SQUARE]) {
        for m in [1, 128, 512] {
            let (shape, bytes) = (format!("{m}x{n}x{k}"), Weights::bytes((n, k)));
            let Some(path) = Path::of(device.isa(), m).filter(|_| table.wants_shape(&shape)) else {
                continue;
            };
            let copies = match m {
                1 => ROTATION_BYTES.div_ceil(bytes).min(24),
                _ => 1,
            };
            let weights = Weights::random((n, k), copies);
            let codes = quantized(device, &matrix(device, m, k));
            let rows: Vec<_> = (0..m).map(|row| codes.row(row)).collect();
            let a = Activations::new(path, &rows);
            let mut d = in_huge_pages(m.div_ceil(a.block_rows()) * a.block_rows() * n);
            d.resize(d.capacity(), 0.0);
            let (amount, unit) = match m {
                1 => (bytes as f64, "GB/s"),
                _ => (2.0 * (m * n * k) as f64, "GOPS"),
            };
            let mut turn = 0;
            table.row(device, "gemm_w4f", &shape, amount, unit, || {
                turn = (turn + 1) % copies;
                gemm(device, &a, &weights, turn, &mut d);
            });
        }
    }
}
