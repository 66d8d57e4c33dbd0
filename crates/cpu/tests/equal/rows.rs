//! Operations on rows: norms, rope, quantization, activations, softmax and the small ones.

use dualgrain_cpu::{CpuDevice, Matrix, Quantized};
use dualgrain_device::{Activation, ActivationScale, Device, GateLimit, Statistics, naive};
use dualgrain_format::FloatValues;
use half::bf16;

use super::cases::{Random, assert_same, devices, name};

/// Rows and columns around the 16 lanes and the chunk of rows.
const SHAPES: [(usize, usize); 8] = [
    (1, 1),
    (2, 15),
    (3, 16),
    (5, 17),
    (17, 64),
    (4, 130),
    (3, 2_048),
    (40, 1_000),
];

fn upload(device: &CpuDevice, values: &[f32], columns: usize) -> Matrix {
    let mut x = device.matrix(values.len() / columns, columns).unwrap();
    device.upload(&mut x, values).unwrap();
    x
}

fn values(device: &CpuDevice, x: &Matrix) -> Vec<f32> {
    let mut out = vec![0.0; device.rows(x) * device.columns(x)];
    device.download(x, 0..device.rows(x), &mut out).unwrap();
    out
}

fn indices(device: &CpuDevice, values: &[u32]) -> Vec<u32> {
    let mut indices = device.indices(values.len()).unwrap();
    device.upload_indices(&mut indices, values).unwrap();
    indices
}

/// Runs `expected` row by row and `run` on each device over all shapes.
fn compare(
    what: &str,
    expected: impl Fn(usize, &[f32], &[f32]) -> Vec<f32>,
    run: impl Fn(&CpuDevice, &Matrix, &[f32]) -> Matrix,
) {
    let mut r = Random(31);
    for (rows, columns) in SHAPES {
        let (x, weight) = (r.floats(rows * columns), r.floats(columns));
        let rows: Vec<f32> = x
            .chunks(columns)
            .enumerate()
            .flat_map(|(i, row)| expected(i, row, &weight))
            .collect();
        for device in devices() {
            let got = run(&device, &upload(&device, &x, columns), &weight);
            assert_same(
                &values(&device, &got),
                &rows,
                &format!("{what} {columns} on {}", name(&device)),
            );
        }
    }
}

#[test]
fn norms_equal_the_specification() {
    let eps = 1e-5;
    compare(
        "rms norm",
        |_, x, weight| {
            let mut out = vec![0.0; x.len()];
            naive::rms_norm(x, weight, eps, &mut out);
            out
        },
        |device, x, weight| {
            let mut out = device.matrix(device.rows(x), weight.len()).unwrap();
            device
                .rms_norm(&mut out, x, &upload(device, weight, weight.len()), eps)
                .unwrap();
            out
        },
    );
    compare(
        "layer norm",
        |_, x, weight| {
            let mut out = vec![0.0; x.len()];
            naive::layer_norm(x, weight, weight, eps, &mut out);
            out
        },
        |device, x, weight| {
            let mut out = device.matrix(device.rows(x), weight.len()).unwrap();
            let weight = upload(device, weight, weight.len());
            device.layer_norm(&mut out, x, &weight, &weight, eps).unwrap();
            out
        },
    );
}

#[test]
fn norm_and_rope_of_heads_touch_their_columns_only() {
    let (tokens, width, columns, head_dim, rotary) = (9, 120, 20..100, 20, 16);
    let mut r = Random(32);
    let (x, weight, angles) = (
        r.floats(tokens * width),
        r.floats(head_dim),
        r.floats(tokens * rotary),
    );
    let mut expected = x.clone();
    for (row, angles) in expected.chunks_mut(width).zip(angles.chunks(rotary)) {
        for head in row[columns.clone()].chunks_mut(head_dim) {
            let before = head.to_vec();
            naive::rms_norm(&before, &weight, 1e-6, head);
            naive::rope_head(head, &angles[..rotary / 2], &angles[rotary / 2..]);
        }
    }
    for device in devices() {
        let mut got = upload(&device, &x, width);
        device
            .rms_norm_heads(
                &mut got,
                columns.clone(),
                &upload(&device, &weight, head_dim),
                1e-6,
            )
            .unwrap();
        device
            .rope(
                &mut got,
                columns.clone(),
                head_dim,
                &upload(&device, &angles, rotary),
            )
            .unwrap();
        assert_same(&values(&device, &got), &expected, &name(&device));
    }
}

#[test]
fn activations_equal_the_specification() {
    for f in [
        Activation::Relu,
        Activation::Silu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Clamped(GateLimit::new(1.75).unwrap()),
    ] {
        compare(
            &format!("{f:?}"),
            |_, x, _| x.iter().map(|v| naive::activation(f, *v)).collect(),
            |device, x, _| {
                let mut x = x.clone();
                device.activate(&mut x, f).unwrap();
                x
            },
        );
        let mut r = Random(33);
        let x = r.floats(7 * 2 * 37).iter().map(|v| v * 30.0).collect::<Vec<_>>();
        let mut expected = vec![0.0; 7 * 37];
        for (x, out) in x.chunks(74).zip(expected.chunks_mut(37)) {
            naive::gated(x, f, out);
        }
        for device in devices() {
            let mut out = device.matrix(7, 37).unwrap();
            device.gated(&mut out, &upload(&device, &x, 74), f).unwrap();
            assert_same(
                &values(&device, &out),
                &expected,
                &format!("gated {f:?} on {}", name(&device)),
            );
        }
    }
}

/// Blocks shorter than a vector, of whole vectors, of vectors that meet in registers and in a second pass.
const BLOCKS: [usize; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

#[test]
fn hadamard_transforms_equal_the_specification_alone_and_quantized() {
    let mut r = Random(35);
    for block in BLOCKS {
        for (rows, columns) in [(1, block), (3, 7 * block), (40, 3 * block)] {
            let mut x = r.floats(rows * columns);
            x[0] = 3e4;
            let mut expected = x.clone();
            naive::hadamard(&mut expected, block);
            let scale = ActivationScale::PerToken;
            for device in devices() {
                let what = format!("blocks of {block} in {columns} on {}", name(&device));
                let mut got = upload(&device, &x, columns);
                device.hadamard(&mut got, block).unwrap();
                assert_same(&values(&device, &got), &expected, &what);
                let (mut x, mut joined) = (
                    upload(&device, &x, columns),
                    device.quantized(rows, columns).unwrap(),
                );
                device
                    .hadamard_quantize(&mut joined, &mut x, block, scale)
                    .unwrap();
                assert_quantized(&joined, &quantized(&expected, columns, scale), &what);
            }
        }
    }
}

#[test]
fn log_softmax_and_addition_equal_the_specification() {
    compare(
        "log softmax",
        |_, x, _| {
            let mut x: Vec<f32> = x.iter().map(|v| v * 50.0).collect();
            naive::log_softmax(&mut x);
            x
        },
        |device, x, weight| {
            let scaled: Vec<f32> = values(device, x).iter().map(|v| v * 50.0).collect();
            let mut x = upload(device, &scaled, weight.len());
            device.log_softmax(&mut x).unwrap();
            x
        },
    );
    compare(
        "addition",
        |_, x, _| {
            let mut sum = x.to_vec();
            naive::add(&mut sum, x);
            sum
        },
        |device, x, _| {
            let mut sum = x.clone();
            device.add(&mut sum, x).unwrap();
            sum
        },
    );
}

#[test]
fn quantization_equals_the_specification_also_for_zeros_ties_and_infinities() {
    let mut r = Random(34);
    for columns in [1, 31, 32, 33, 130] {
        let mut rows = vec![
            vec![0.0; columns],
            vec![-0.0; columns],
            vec![1e-44; columns],
            vec![f32::MAX; columns],
        ];
        rows.push((0..columns).map(|i| (i as f32 - 20.0) * 0.5).collect());
        rows.push(r.floats(columns));
        rows.push(
            (0..columns)
                .map(|i| [1.0, f32::NAN, f32::INFINITY][i % 3])
                .collect(),
        );
        for scale in [
            ActivationScale::PerToken,
            ActivationScale::Static(0.25),
            ActivationScale::Static(0.0),
        ] {
            for device in devices() {
                let mut got = device.quantized(rows.len(), columns).unwrap();
                device
                    .quantize(&mut got, &upload(&device, &rows.concat(), columns), scale)
                    .unwrap();
                for (row, x) in rows.iter().enumerate() {
                    let mut codes = vec![0; columns];
                    let ta = naive::quantize_row(x, scale, &mut codes);
                    let (got_codes, got_ta) = got.row(row);
                    assert_eq!(got_codes, codes, "{} {scale:?} row {row}", name(&device));
                    assert_eq!(
                        got_ta.to_bits(),
                        ta.to_bits(),
                        "{} {scale:?} row {row}",
                        name(&device)
                    );
                }
            }
        }
    }
}

/// Rows whose norms are ordinary, zero, beyond float and not a number.
fn hostile_rows(r: &mut Random, (rows, columns): (usize, usize)) -> Vec<f32> {
    let mut x = r.floats(rows * columns);
    for (row, x) in x.chunks_mut(columns).enumerate() {
        match row % 7 {
            1 => x.fill(0.0),
            2 => x.fill(-0.0),
            3 => x.iter_mut().for_each(|v| *v *= 1e-43),
            4 => x.iter_mut().for_each(|v| *v *= 3e38),
            5 => x[columns / 2] = f32::NAN,
            6 => x[columns - 1] = f32::NEG_INFINITY,
            _ => {}
        }
    }
    x
}

/// Codes and scales of rows, one by one.
fn quantized(rows: &[f32], columns: usize, scale: ActivationScale) -> Vec<(Vec<i8>, u32)> {
    let quantize = |x: &[f32]| {
        let mut codes = vec![0; columns];
        let ta = naive::quantize_row(x, scale, &mut codes);
        (codes, ta.to_bits())
    };
    rows.chunks(columns).map(quantize).collect()
}

#[test]
fn a_norm_that_quantizes_gives_the_bits_of_the_norm_and_then_the_quantization() {
    let (mut r, eps) = (Random(36), 1e-6);
    let scales = [
        ActivationScale::PerToken,
        ActivationScale::Static(0.03),
        ActivationScale::Static(0.0),
    ];
    for (rows, columns) in [
        (1, 1),
        (1, 2_048),
        (7, 31),
        (8, 33),
        (13, 100),
        (50, 1_000),
        (3, 4_100),
    ] {
        let (mut weight, bias) = (r.floats(columns), r.floats(columns));
        weight[columns / 3] *= 1e30;
        let x = hostile_rows(&mut r, (rows, columns));
        let (mut rms, mut layer) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        for (row, x) in x.chunks(columns).enumerate() {
            let range = row * columns..(row + 1) * columns;
            naive::rms_norm(x, &weight, eps, &mut rms[range.clone()]);
            naive::layer_norm(x, &weight, &bias, eps, &mut layer[range]);
        }
        for (scale, device) in scales
            .into_iter()
            .flat_map(|s| devices().into_iter().map(move |b| (s, b)))
        {
            let matrix = |values: &[f32]| upload(&device, values, columns);
            let (x, weight, bias) = (matrix(&x), matrix(&weight), matrix(&bias));
            let (mut h, mut got) = (
                device.matrix(0, columns).unwrap(),
                device.quantized(rows + 1, columns).unwrap(),
            );
            // What an earlier step left in the buffer must not show.
            device
                .quantize(&mut got, &matrix(&vec![1.0; (rows + 1) * columns]), scale)
                .unwrap();
            let what = format!("{rows}x{columns} {scale:?} on {}", name(&device));
            device
                .rms_norm_quantize(&mut got, &mut h, &x, &weight, eps, scale)
                .unwrap();
            assert_quantized(
                &got,
                &quantized(&rms, columns, scale),
                &format!("rms norm {what}"),
            );
            device
                .layer_norm_quantize(&mut got, &mut h, &x, (&weight, &bias), eps, scale)
                .unwrap();
            assert_quantized(
                &got,
                &quantized(&layer, columns, scale),
                &format!("layer norm {what}"),
            );
        }
    }
}

fn assert_quantized(got: &Quantized, expected: &[(Vec<i8>, u32)], what: &str) {
    for (row, expected) in expected.iter().enumerate() {
        let (codes, ta) = got.row(row);
        assert_eq!((codes, ta.to_bits()), *expected, "row {row} of {what}");
    }
}

#[test]
fn rows_are_looked_up_gathered_and_their_maxima_kept() {
    let mut r = Random(35);
    let (entries, columns) = (11, 700);
    let floats = r.floats(entries * columns);
    let halves: Vec<bf16> = floats.iter().map(|v| bf16::from_f32(*v)).collect();
    let ids = [3, 0, 10, 3];
    for table in [FloatValues::F32(floats.clone()), FloatValues::Bf16(halves)] {
        let mut expected = vec![0.0; ids.len() * columns];
        for (id, out) in ids.into_iter().zip(expected.chunks_mut(columns)) {
            naive::embed(&table, id, out);
        }
        for device in devices() {
            let mut x = device.matrix(ids.len(), columns).unwrap();
            let table = device.table(table.clone(), columns).unwrap();
            device.embed(&mut x, &table, &indices(&device, &ids)).unwrap();
            assert_same(&values(&device, &x), &expected, &name(&device));
        }
    }
    let mut gathered = vec![0.0; ids.len() * columns];
    naive::gather(&floats, columns, &ids, &mut gathered);
    let mut maxima = vec![0.5; 650];
    floats
        .chunks(columns)
        .for_each(|row| naive::abs_max(&row[25..675], &mut maxima));
    for device in devices() {
        let x = upload(&device, &floats, columns);
        let mut out = device.matrix(ids.len(), columns).unwrap();
        device.gather(&mut out, &x, &indices(&device, &ids)).unwrap();
        assert_same(&values(&device, &out), &gathered, &name(&device));
        let mut got = device.maxima(650).unwrap();
        for x in [&upload(&device, &[0.5; 700], columns), &x] {
            device.abs_max(x, 25..675, &mut got).unwrap();
        }
        assert_same(&device.read_maxima(&got).unwrap(), &maxima, &name(&device));
    }
}
