//! Products with INT8 and with float weights on a card, against the specification, bit for bit.
//!
//! Without a card or a compiler it says SKIPPED, or fails with `DUALGRAIN_MAY_LACK=nothing`. `--cases N` (default 200 of each
//! scheme, each by every kernel); `--times` prints speeds afterwards.

mod card;

use std::process::ExitCode;

use dualgrain_cuda::{
    Buffer, CudaError, FloatKernel, FloatKind, FloatPacker, GemmFloat, GemmW8A8, Gpu, Jit, LinearFloat,
    LinearW8, QuantizedTokens, W8Kernel, W8Packer, rotation_copies, times_s,
};
use dualgrain_device::cases::{HOSTILITIES, Hostility, Random, activations, w8_layer};
use dualgrain_device::naive;
use dualgrain_format::{FloatLinear, FloatValues, Int8Linear, LinearWeights};
use half::bf16;

/// Rows of an output buffer beyond those that are written.
const SPARE_ROWS: usize = 3;
/// What every byte of an output holds before.
const UNWRITTEN: u8 = 0xa5;

fn main() -> ExitCode {
    card::compare("products", 200, compare_all, print_times)
}

/// Products of `count` cases of each scheme that differ.
fn compare_all(jit: &Jit, gpu: &Gpu, count: usize) -> Result<usize, CudaError> {
    let (w8, float) = (GemmW8A8::new(jit, gpu)?, GemmFloat::new(jit, gpu)?);
    let (mut r, mut launches, mut failed) = (Random(23), 0, 0);
    for index in 0..count {
        for wrong in [
            compare_w8(gpu, &w8, &mut r, index)?,
            compare_float(gpu, &float, &mut r, index)?,
        ] {
            launches += wrong.len();
            failed += wrong.iter().filter(|&&wrong| wrong).count();
        }
    }
    println!("{launches} products of {count} cases of each scheme");
    Ok(failed)
}

/// Tokens, rows and columns; every 40th case has several tiles for every multiprocessor.
fn shape(r: &mut Random, index: usize) -> (usize, usize, usize) {
    let ks = [
        1, 2, 3, 7, 15, 16, 17, 31, 63, 64, 65, 127, 128, 129, 130, 255, 257, 511, 1_021, 1_024, 2_051, 4_096,
    ];
    let ns = [
        1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 191, 257, 300,
    ];
    let ms = [
        1, 1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200, 300,
    ];
    if index % 40 == 39 {
        return (257 + r.below(44), 17_001 + r.below(99), 1 + r.below(200));
    }
    let (m, n, k) = (
        ms[r.below(ms.len())],
        ns[r.below(ns.len())],
        ks[r.below(ks.len())],
    );
    match m * n * k > 40_000_000 {
        true => (m.min(33), n, k),
        false => (m, n, k),
    }
}

fn compare_w8(gpu: &Gpu, gemm: &GemmW8A8, r: &mut Random, index: usize) -> Result<Vec<bool>, CudaError> {
    let (m, n, k) = shape(r, index);
    let how = match r.below(5) {
        4 => Hostility::OneSign,
        i => HOSTILITIES[i],
    };
    let layer = hostile_w8(r, (n, k), how);
    let (codes, scales) = activations(r, (m, k), how);
    let (mut acc, mut expected) = (vec![0; m * n], vec![0.0; m * n]);
    naive::gemm_w8a8(&codes, &scales, &layer, &mut acc, &mut expected);
    let linear = match r.below(2) {
        0 => LinearW8::new(gpu, &layer)?,
        _ => w8_of_slices(gpu, &layer, r)?,
    };
    assert_eq!(linear.shape(), (n, k));
    // Buffers have room for more tokens than a step brings.
    let (mut codes, mut scales) = (codes, scales);
    let spare = r.below(4);
    codes.extend(vec![77; spare * k]);
    scales.extend(vec![f32::NAN; spare]);
    let tokens = QuantizedTokens::upload(gpu, &codes, &scales, k)?;
    let words = format!("W8A8 {m}x{n}x{k} {how:?} bias {}", layer.bias().is_some());
    let all = W8Kernel::ALL.map(|kernel| {
        let launch = |out: &Buffer| gemm.launch_with(kernel, &linear, &tokens, m, out);
        differs(gpu, &expected, (m, n), &format!("{words} {kernel:?}"), launch)
    });
    let chosen = |out: &Buffer| gemm.launch(&linear, &tokens, m, out);
    let chosen = differs(gpu, &expected, (m, n), &words, chosen);
    let groups = |out: &Buffer| gemm.launch_groups(&linear, &tokens, m, out);
    let groups = gemm
        .has_groups(m, k)
        .then(|| differs(gpu, &expected, (m, n), &format!("{words} groups"), groups));
    all.into_iter().chain([chosen]).chain(groups).collect()
}

/// A layer with the largest weights, with scales of zero, with or without a bias.
fn hostile_w8(r: &mut Random, (n, k): (usize, usize), how: Hostility) -> Int8Linear {
    let layer = w8_layer(r, (n, k));
    if how != Hostility::OneSign {
        return layer;
    }
    let s1 = (0..n).map(|row| if row % 3 == 0 { 0.0 } else { 1.0 }).collect();
    let bias = layer.bias().map(<[f32]>::to_vec);
    Int8Linear::new((n, k), vec![127; n * k], s1, bias, None).expect("a valid layer")
}

/// The layer by slices of multiples of 64 rows.
fn w8_of_slices(gpu: &Gpu, layer: &Int8Linear, r: &mut Random) -> Result<LinearW8, CudaError> {
    let mut packer = W8Packer::new(gpu, (layer.n(), layer.k()))?;
    let whole = LinearWeights::W8(layer.clone());
    let mut first = 0;
    while first < layer.n() {
        let end = layer.n().min(first + 64 * (1 + r.below(3)));
        let rows: Vec<usize> = (first..end).collect();
        let LinearWeights::W8(slice) = whole.select_rows(&rows).expect("rows of the layer") else {
            unreachable!("a layer of one scheme");
        };
        packer.push(&slice)?;
        first = end;
    }
    packer.finish()
}

fn compare_float(gpu: &Gpu, gemm: &GemmFloat, r: &mut Random, index: usize) -> Result<Vec<bool>, CudaError> {
    let (m, n, k) = shape(r, index);
    let layer = float_layer(r, (n, k));
    let kind = FloatKind::of(layer.weight());
    let mut x = hostile_floats(r, m * k);
    if r.below(5) == 0 {
        x[r.below(m * k)] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][r.below(3)];
    }
    let mut expected = vec![0.0; m * n];
    naive::gemm_float(&x, &layer, &mut expected);
    let linear = match r.below(2) {
        0 => LinearFloat::new(gpu, &layer)?,
        _ => float_of_slices(gpu, &layer, r)?,
    };
    assert_eq!((linear.shape(), linear.kind()), ((n, k), kind));
    x.extend(vec![f32::NAN; r.below(4) * k]);
    let x = gpu.upload(&x)?;
    let words = format!("float {m}x{n}x{k} {kind:?} bias {}", layer.bias().is_some());
    let all = FloatKernel::ALL.map(|kernel| {
        let launch = |out: &Buffer| gemm.launch_with(kernel, &linear, &x, m, out);
        differs(gpu, &expected, (m, n), &format!("{words} {kernel:?}"), launch)
    });
    let chosen = |out: &Buffer| gemm.launch(&linear, &x, m, out);
    let chosen = differs(gpu, &expected, (m, n), &words, chosen);
    all.into_iter().chain([chosen]).collect()
}

/// Floats of all sizes: products that vanish (leaving a zero of either sign), subnormal ones, common ones.
fn hostile_floats(r: &mut Random, len: usize) -> Vec<f32> {
    let sizes = [
        [1.0, 1.0],
        [1e-25, 1e-25],
        [1e-20, 1.0],
        [1e10, 1e-10],
        [0.0, 1e-38],
    ][r.below(5)];
    (0..len).map(|_| r.float() * sizes[r.below(2)]).collect()
}

fn float_layer(r: &mut Random, (n, k): (usize, usize)) -> FloatLinear {
    let values = hostile_floats(r, n * k);
    let weight = match r.below(2) {
        0 => FloatValues::F32(values),
        _ => FloatValues::Bf16(values.into_iter().map(bf16::from_f32).collect()),
    };
    let bias = (r.below(2) == 0).then(|| r.floats(n));
    FloatLinear::new(n, k, weight, bias).expect("a valid layer")
}

/// The layer by slices of multiples of 64 rows.
fn float_of_slices(gpu: &Gpu, layer: &FloatLinear, r: &mut Random) -> Result<LinearFloat, CudaError> {
    let kind = FloatKind::of(layer.weight());
    let mut packer = FloatPacker::new(gpu, (layer.n(), layer.k()), kind)?;
    let whole = LinearWeights::Float(layer.clone());
    let mut first = 0;
    while first < layer.n() {
        let end = layer.n().min(first + 64 * (1 + r.below(3)));
        let rows: Vec<usize> = (first..end).collect();
        let LinearWeights::Float(slice) = whole.select_rows(&rows).expect("rows of the layer") else {
            unreachable!("a layer of one scheme");
        };
        packer.push(&slice)?;
        first = end;
    }
    packer.finish()
}

/// Whether a launch's output differs from the expected bits (NaN is any NaN), or it wrote beyond its rows.
fn differs(
    gpu: &Gpu,
    expected: &[f32],
    (m, n): (usize, usize),
    words: &str,
    launch: impl Fn(&Buffer) -> Result<(), CudaError>,
) -> Result<bool, CudaError> {
    let out = gpu.filled(4 * (m + SPARE_ROWS) * n, UNWRITTEN)?;
    launch(&out)?;
    let mut got = vec![0.0f32; (m + SPARE_ROWS) * n];
    out.read(0, &mut got)?;
    let spare = f32::from_le_bytes([UNWRITTEN; 4]);
    let expected = expected.iter().chain(std::iter::repeat(&spare));
    let same = |(got, expected): &(&f32, &f32)| {
        got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan()
    };
    let first = got.iter().zip(expected).position(|pair| !same(&pair));
    if let Some(at) = first {
        println!(
            "FAILED: {words}: row {} column {} is {:?}",
            at / n,
            at % n,
            got[at]
        );
    }
    Ok(first.is_some())
}

fn print_times(jit: &Jit, gpu: &Gpu) -> Result<(), CudaError> {
    let (w8, float) = (GemmW8A8::new(jit, gpu)?, GemmFloat::new(jit, gpu)?);
    let head = (128_256, 4_096);
    for m in [1, 8, 16, 32, 64, 128, 256] {
        time_w8(gpu, &w8, m, head, None)?;
    }
    for (m, kernel) in [
        (32, W8Kernel::Tiled64),
        (64, W8Kernel::Tiled64),
        (128, W8Kernel::Tiled128),
        (256, W8Kernel::Tiled128),
    ] {
        time_w8(gpu, &w8, m, head, Some(kernel))?;
    }
    for m in [1, 16, 64, 128, 256, 512, 2_048] {
        time_w8(gpu, &w8, m, (4_096, 4_096), None)?;
    }
    for kernel in W8Kernel::ALL {
        time_w8(gpu, &w8, 64, (4_096, 4_096), Some(kernel))?;
    }
    for m in [32, 128, 384, 1_024] {
        time_float(gpu, &float, m, (4_096, 4_096), None)?;
    }
    for m in [1, 8, 16] {
        time_float(gpu, &float, m, head, None)?;
    }
    for m in [1, 4, 8, 16, 64, 256, 512, 2_048] {
        let few = |kernel: &FloatKernel| matches!(kernel, FloatKernel::Few8 | FloatKernel::Few16);
        let fits = |kernel: &FloatKernel| match m {
            0..=16 => few(kernel) || *kernel == FloatKernel::Wide16,
            17..=64 => true,
            _ => !few(kernel),
        };
        for kernel in FloatKernel::ALL.into_iter().filter(fits) {
            time_float(gpu, &float, m, (4_096, 4_096), Some(kernel))?;
        }
    }
    Ok(())
}

fn random_bytes(r: &mut Random, len: usize) -> Vec<i8> {
    (0..len).map(|_| (r.below(255) as i32 - 127) as i8).collect()
}

/// Copies of a layer of weights that pass the second-level cache.
fn layers<T>(gpu: &Gpu, bytes: usize, make: impl Fn() -> Result<T, CudaError>) -> Result<Vec<T>, CudaError> {
    (0..rotation_copies(gpu, bytes)).map(|_| make()).collect()
}

fn time_w8(
    gpu: &Gpu,
    gemm: &GemmW8A8,
    m: usize,
    (n, k): (usize, usize),
    kernel: Option<W8Kernel>,
) -> Result<(), CudaError> {
    let mut r = Random(7);
    // Rows are the same ones over and over: random numbers take longer than the card.
    let slice = |rows| {
        Int8Linear::new(
            (rows, k),
            random_bytes(&mut Random(3), rows * k),
            vec![0.01; rows],
            None,
            None,
        )
    };
    let (slice, rest) = (slice(64).expect("a layer"), n % 64);
    assert_eq!(rest, 0, "times are of whole slices");
    let linears = layers(gpu, n * k, || {
        let mut packer = W8Packer::new(gpu, (n, k))?;
        (0..n / 64).try_for_each(|_| packer.push(&slice))?;
        packer.finish()
    })?;
    let tokens = QuantizedTokens::upload(gpu, &random_bytes(&mut r, m * k), &vec![0.01; m], k)?;
    let out = gpu.filled(4 * m * n, 0)?;
    let times = times_s(gpu, 3, linears.len(), |i| match kernel {
        None => gemm.launch(&linears[i], &tokens, m, &out),
        Some(kernel) => gemm.launch_with(kernel, &linears[i], &tokens, m, &out),
    })?;
    println!(
        "W8A8 {m} x {n} x {k} {kernel:?}: {:.2} us, {:.0} GB/s of weights, {:.1} TOPS",
        times[1] * 1e6,
        (n * k) as f64 / times[1] / 1e9,
        2.0 * (m * n * k) as f64 / times[1] / 1e12
    );
    Ok(())
}

fn time_float(
    gpu: &Gpu,
    gemm: &GemmFloat,
    m: usize,
    (n, k): (usize, usize),
    kernel: Option<FloatKernel>,
) -> Result<(), CudaError> {
    let mut r = Random(7);
    let values = r.floats(64 * k).into_iter().map(bf16::from_f32).collect();
    let slice = FloatLinear::new(64, k, FloatValues::Bf16(values), None).expect("a layer");
    assert_eq!(n % 64, 0, "times are of whole slices");
    let linears = layers(gpu, 2 * n * k, || {
        let mut packer = FloatPacker::new(gpu, (n, k), FloatKind::Bf16)?;
        (0..n / 64).try_for_each(|_| packer.push(&slice))?;
        packer.finish()
    })?;
    let x = gpu.upload(&r.floats(m * k))?;
    let out = gpu.filled(4 * m * n, 0)?;
    let times = times_s(gpu, 3, linears.len(), |i| match kernel {
        None => gemm.launch(&linears[i], &x, m, &out),
        Some(kernel) => gemm.launch_with(kernel, &linears[i], &x, m, &out),
    })?;
    let chosen = kernel.unwrap_or(FloatKernel::choose(m, n, gpu.info().num_sms));
    println!(
        "bf16 {m} x {n} x {k} {chosen:?}: {:.2} us, {:.0} GB/s of weights, {:.2} TFLOPS",
        times[1] * 1e6,
        (2 * n * k) as f64 / times[1] / 1e9,
        2.0 * (m * n * k) as f64 / times[1] / 1e12
    );
    Ok(())
}
