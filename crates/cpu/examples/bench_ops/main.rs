//! Speed of every operation that matters, per instruction set: correctness first, then a table and a CSV.
//!
//!     cargo run --release -p dualgrain-cpu --example bench_ops -- [--threads N] [--isa NAME] [--op PREFIX] [--shape PREFIX] [--csv FILE]
//!
//! Weights rotate through copies that pass the caches together, times are the median (and the least) of several
//! rounds; with one thread they are its time on the processor, so that other programs disturb less. A rate stands beside the machine's own: multiply-adds in registers, bytes read from memory.

mod attention;
mod float_groups;
mod model;
mod operands;
mod peak;
mod shapes;
mod table;

use std::hint::black_box;

use dualgrain_cpu::{CpuDevice, Isa, Linear, available};
use dualgrain_device::{Activation, ActivationScale, Device, Gram, Operand, Statistics, naive};
use dualgrain_format::{FloatLinear, FloatValues, GroupSize, LinearWeights};
use half::bf16;

use crate::operands::{floats, grouped_w4, matrix, quantized, w4, w8};
use crate::shapes::{LAYERS, ROTATION_BYTES, SQUARE};
use crate::table::{Options, Table};

fn main() {
    let options = Options::from_args();
    let mut table = Table::new(options.op.clone(), options.shape.clone());
    for isa in available() {
        if options.isa.as_ref().is_some_and(|name| name != isa.name())
            || (options.isa.is_none() && isa == Isa::Portable)
        {
            continue;
        }
        let device = CpuDevice::with_isa(options.threads, isa).expect("available");
        check(&device);
        peak::peaks(&device, &mut table);
        memory(&device, &mut table);
        linears(&device, &mut table);
        float_groups::float_groups(&device, &mut table);
        attention::attention(&device, &mut table);
        quantizer(&device, &mut table);
        rows(&device, &mut table);
        added(&device, &mut table);
        model::model(&device, &mut table);
    }
    if let Some(path) = options.csv {
        std::fs::write(&path, table.csv).expect("writable CSV path");
    }
}

fn float(n: usize, k: usize, halves: bool) -> LinearWeights {
    let values = floats(n * k);
    let values = match halves {
        true => FloatValues::Bf16(values.iter().map(|v| bf16::from_f32(*v)).collect()),
        false => FloatValues::F32(values),
    };
    LinearWeights::Float(FloatLinear::new(n, k, values, None).expect("valid layer"))
}

/// No timing of wrong results: a product against the specification first.
fn check(device: &CpuDevice) {
    let LinearWeights::W4(layer) = w4(96, 256) else {
        unreachable!("w4 makes W4 layers")
    };
    let x = matrix(device, 13, 256);
    let a = quantized(device, &x);
    let rows: Vec<(Vec<i8>, f32)> = (0..13).map(|row| a.row(row)).collect();
    let codes: Vec<i8> = rows.iter().flat_map(|(codes, _)| codes.clone()).collect();
    let scales: Vec<f32> = rows.iter().map(|(_, scale)| *scale).collect();
    let (mut acc, mut d) = (vec![0; 13 * 96], vec![0.0; 13 * 96]);
    naive::gemm_w4a8(&codes, &scales, &layer, &mut acc, &mut d);
    let packed = device.pack(LinearWeights::W4(layer)).expect("packs");
    assert_eq!(
        device.gemm_acc(&a, &packed),
        acc,
        "{} differs from the specification",
        device.isa().name()
    );
}

/// Bytes a second that all threads read together.
fn memory(device: &CpuDevice, table: &mut Table) {
    let mut data = vec![
        1u64;
        if table.wants("memory_read") {
            ROTATION_BYTES / 8
        } else {
            0
        }
    ];
    let bytes = data.len() as f64 * 8.0;
    table.row(device, "memory_read", "512MiB", bytes, "GB/s", || {
        device.pool().for_each_chunk(&mut data, 1 << 17, |_, chunk| {
            black_box(chunk.iter().fold(0u64, |sum, v| sum.wrapping_add(*v)));
        });
    });
}

fn linears(device: &CpuDevice, table: &mut Table) {
    type Make = fn(usize, usize) -> LinearWeights;
    let makes: [(&str, Make); 5] = [
        ("gemm_w4a8", w4),
        // What the fine grain costs: the same kernel with one scale a row.
        ("gemm_w4a8_channel", |n, k| grouped_w4(n, k, GroupSize::WholeRow)),
        ("gemm_w8a8", w8),
        ("gemm_f32", |n, k| float(n, k, false)),
        ("gemm_bf16", |n, k| float(n, k, true)),
    ];
    for (op, make) in makes {
        if !table.wants(op) {
            continue;
        }
        for (n, k) in LAYERS.into_iter().chain([SQUARE]) {
            let mut layers = vec![device.pack(make(n, k)).expect("packs")];
            let bytes = device.linear_bytes(&layers[0]);
            // Decode reads each copy once; prefill stays with one.
            let copies = ROTATION_BYTES.div_ceil(bytes).min(24);
            for m in [1, 4, 16, 128, 512, 1024] {
                if m == 1 {
                    layers.extend((1..copies).map(|_| device.pack(make(n, k)).expect("packs")));
                }
                let x = matrix(device, m, k);
                let a = quantized(device, &x);
                let mut out = device.matrix(m, n).unwrap();
                let mut turn = 0;
                let mut call = |layers: &[Linear]| {
                    turn = (turn + 1) % layers.len();
                    let operand = if op.contains("a8") {
                        Operand::Int8(&a)
                    } else {
                        Operand::Float(&x)
                    };
                    device.gemm(&mut out, operand, &layers[turn]).unwrap();
                };
                let operations = 2.0 * (m * n * k) as f64;
                let (amount, unit) = match m {
                    1 | 4 => (bytes as f64, "GB/s"),
                    _ => (operations, if op.contains("a8") { "GOPS" } else { "GFLOPS" }),
                };
                table.row(device, op, &format!("{m}x{n}x{k}"), amount, unit, || {
                    call(&layers)
                });
            }
        }
    }
}

/// The quantizer's hot loops.
fn quantizer(device: &CpuDevice, table: &mut Table) {
    for k in [512, 2_048, 5_632] {
        if !table.wants("gram_accumulate") {
            break;
        }
        let (mut gram, x) = (Gram::new(k), matrix(device, 1_024, k));
        let operations = 1_024.0 * (k * (k + 1)) as f64;
        table.row(
            device,
            "gram_accumulate",
            &format!("1024x{k}"),
            operations,
            "GFLOPS",
            || {
                device.gram_accumulate(&mut gram, &x).unwrap();
            },
        );
    }
    // Candidates of all rows over one group, of some rows over the whole input.
    for (rows, k) in [
        (10_240, 64),
        (10_240, 128),
        (768, 512),
        (768, 2_048),
        (768, 5_632),
    ] {
        if !table.wants("output_errors") {
            break;
        }
        let (gram, errors) = (Gram::new(k), floats(rows * k));
        let (mut out, mut on_host) = (device.output_errors(rows).unwrap(), vec![0.0; rows]);
        let operations = rows as f64 * (k * (k + 1)) as f64;
        table.row(
            device,
            "output_errors",
            &format!("{rows}x{k}"),
            operations,
            "GFLOPS",
            || {
                device.compute_output_errors(&mut out, &&gram, &errors).unwrap();
                device.read_output_errors(&out, &mut on_host).unwrap();
            },
        );
    }
}

fn rows(device: &CpuDevice, table: &mut Table) {
    for (m, k) in [(1, 2_048), (1_024, 2_048)] {
        let x = matrix(device, m, k);
        let weight = matrix(device, 1, k);
        let (mut out, mut a) = (device.matrix(m, k).unwrap(), device.quantized(m, k).unwrap());
        let (shape, elements) = (format!("{m}x{k}"), (m * k) as f64);
        table.row(device, "rows_rms_norm", &shape, elements, "Gel/s", || {
            device.rms_norm(&mut out, &x, &weight, 1e-5).unwrap()
        });
        table.row(device, "rows_quantize", &shape, elements, "Gel/s", || {
            device.quantize(&mut a, &x, ActivationScale::PerToken).unwrap();
        });
        table.row(
            device,
            "rows_rms_norm_quantize",
            &shape,
            elements,
            "Gel/s",
            || {
                device
                    .rms_norm_quantize(&mut a, &mut out, &x, &weight, 1e-5, ActivationScale::PerToken)
                    .unwrap();
            },
        );
        // What it replaces: through a matrix of floats.
        table.row(
            device,
            "rows_rms_norm_then_quantize",
            &shape,
            elements,
            "Gel/s",
            || {
                device.rms_norm(&mut out, &x, &weight, 1e-5).unwrap();
                device.quantize(&mut a, &out, ActivationScale::PerToken).unwrap();
            },
        );
        let mut half = device.matrix(m, k / 2).unwrap();
        table.row(device, "rows_gated_silu", &shape, elements / 2.0, "Gel/s", || {
            device.gated(&mut half, &x, Activation::Silu).unwrap();
        });
        let mut logits = matrix(device, m, k);
        table.row(device, "rows_log_softmax", &shape, elements, "Gel/s", || {
            device.log_softmax(&mut logits).unwrap()
        });
        table.row(device, "rows_add", &shape, elements, "Gel/s", || {
            device.add(&mut out, &x).unwrap()
        });
    }
}

/// A product that adds to the stream, and what it replaces.
fn added(device: &CpuDevice, table: &mut Table) {
    for (m, (n, k)) in [(1, LAYERS[1]), (512, LAYERS[1]), (512, LAYERS[3])] {
        if !table.wants("added_w4a8") && !table.wants("added_then") {
            return;
        }
        let weights = device.pack(w4(n, k)).expect("packs");
        let a = quantized(device, &matrix(device, m, k));
        let (mut x, mut y) = (matrix(device, m, n), device.matrix(m, n).unwrap());
        let (shape, operations) = (format!("{m}x{n}x{k}"), (2 * m * n * k) as f64);
        table.row(device, "added_w4a8", &shape, operations, "GOPS", || {
            device
                .gemm_add(&mut x, &mut y, Operand::Int8(&a), &weights)
                .unwrap();
        });
        table.row(device, "added_then", &shape, operations, "GOPS", || {
            device.gemm(&mut y, Operand::Int8(&a), &weights).unwrap();
            device.add(&mut x, &y).unwrap();
        });
    }
}
