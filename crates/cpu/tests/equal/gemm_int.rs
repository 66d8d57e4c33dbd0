//! Integer products: equal sums and equal outputs everywhere.

use dualgrain_cpu::{CpuDevice, Linear};
use dualgrain_device::{Activation, Device, GateLimit, Operand, SLICE_ROWS, naive};
use dualgrain_format::{GroupSize, LinearWeights, QuantizedLinear};

use super::cases::{
    HOSTILITIES, Hostility, Random, activations, assert_same, devices, name, pack_in_slices, w4_layer,
    w8_layer, weights,
};

/// Sums and outputs of one product.
type Product = (Vec<i32>, Vec<f32>);

pub fn naive_w4(layer: &QuantizedLinear, codes: &[i8], ta: &[f32]) -> Product {
    let (mut acc, mut d) = (vec![0; ta.len() * layer.n()], vec![0.0; ta.len() * layer.n()]);
    naive::gemm_w4a8(codes, ta, layer, &mut acc, &mut d);
    (acc, d)
}

pub fn run(device: &CpuDevice, layer: LinearWeights, codes: &[i8], ta: &[f32]) -> Product {
    let k = layer.k();
    product(device, (&device.pack(layer).unwrap(), k), codes, ta)
}

fn product(device: &CpuDevice, (packed, k): (&Linear, usize), codes: &[i8], ta: &[f32]) -> Product {
    let n = device.linear_n(packed);
    let mut a = device.quantized(ta.len(), k).unwrap();
    device.upload_int8(&mut a, codes, ta);
    let mut out = device.matrix(ta.len(), n).unwrap();
    device.gemm(&mut out, Operand::Int8(&a), packed).unwrap();
    let mut d = vec![0.0; ta.len() * n];
    device.download(&out, 0..ta.len(), &mut d).unwrap();
    (device.gemm_acc(&a, packed), d)
}

fn check_w4(
    r: &mut Random,
    devices: &[CpuDevice],
    (m, n, k): (usize, usize, usize),
    size: GroupSize,
    how: Hostility,
) {
    let layer = w4_layer(r, (n, k), size, how);
    let (codes, ta) = activations(r, (m, k), how);
    let expected = naive_w4(&layer, &codes, &ta);
    for device in devices {
        let what = format!("{} {m}x{n}x{k} group {size} {how:?}", name(device));
        let got = run(device, weights(&layer), &codes, &ta);
        assert_eq!(got.0, expected.0, "sums of {what}");
        assert_same(&got.1, &expected.1, &what);
    }
}

fn check_w8(r: &mut Random, devices: &[CpuDevice], (m, n, k): (usize, usize, usize), how: Hostility) {
    let layer = w8_layer(r, (n, k));
    let (codes, ta) = activations(r, (m, k), how);
    let (mut acc, mut d) = (vec![0; m * n], vec![0.0; m * n]);
    naive::gemm_w8a8(&codes, &ta, &layer, &mut acc, &mut d);
    for device in devices {
        let what = format!("{} {m}x{n}x{k}", name(device));
        let got = run(device, LinearWeights::W8(layer.clone()), &codes, &ta);
        assert_eq!(got.0, acc, "sums of {what}");
        assert_same(&got.1, &d, &what);
    }
}

#[test]
fn w4a8_equals_the_specification_on_every_instruction_set() {
    let (devices, mut r) = (devices(), Random(1));
    let sizes = [
        GroupSize::Along(32),
        GroupSize::Along(64),
        GroupSize::Along(128),
        GroupSize::WholeRow,
    ];
    // Around the panel (16), the pair of panels (32), the padding of K (8, 32) and the groups.
    let ns = [1, 2, 7, 15, 16, 17, 31, 32, 33, 48, 67];
    let ks = [
        1, 3, 4, 7, 8, 9, 31, 32, 33, 63, 64, 65, 96, 97, 127, 128, 129, 130, 160, 251, 256, 385,
    ];
    check_w4(&mut r, &devices, (0, 33, 64), sizes[0], Hostility::Random);
    for m in 1..=17 {
        for size in sizes {
            for how in HOSTILITIES {
                check_w4(
                    &mut r,
                    &devices,
                    (m, ns[spread(m, how, ns.len())], ks[spread(3 * m, how, ks.len())]),
                    size,
                    how,
                );
            }
        }
    }
    for _ in 0..40 {
        let shape = (1 + r.below(40), ns[r.below(ns.len())], ks[r.below(ks.len())]);
        let (size, how) = (sizes[r.below(4)], HOSTILITIES[r.below(4)]);
        check_w4(&mut r, &devices, shape, size, how);
    }
}

/// Spreads the small lists over the cases.
fn spread(m: usize, how: Hostility, len: usize) -> usize {
    (m + 3 * HOSTILITIES.iter().position(|h| *h == how).unwrap()) % len
}

#[test]
fn few_tokens_meet_odd_and_even_numbers_of_panels_in_every_grouping() {
    let (devices, mut r) = (devices(), Random(7));
    for m in 1..=4 {
        for n in [16, 32, 48, 64, 80, 97] {
            for k in [130, 385, 520] {
                for size in [32, 64, 128]
                    .map(GroupSize::Along)
                    .into_iter()
                    .chain([GroupSize::WholeRow])
                {
                    check_w4(
                        &mut r,
                        &devices,
                        (m, n, k),
                        size,
                        HOSTILITIES[(m + n + k) % HOSTILITIES.len()],
                    );
                }
            }
        }
    }
}

#[test]
fn longest_rows_stay_exact_modulo_two_to_the_32() {
    let (devices, mut r) = (devices(), Random(2));
    for size in [GroupSize::Along(128), GroupSize::Along(32), GroupSize::WholeRow] {
        for how in [Hostility::Extreme, Hostility::LargestScale] {
            check_w4(&mut r, &devices, (2, 17, 28_672), size, how);
            check_w4(&mut r, &devices, (13, 16, 28_671), size, how);
        }
    }
    check_w4(
        &mut r,
        &devices,
        (9, 1, 131_071),
        GroupSize::WholeRow,
        Hostility::Extreme,
    );
}

/// Eight products of 15 * 127 fit i16 twice over, sixteen not once: whoever adds up more in i16 shows here.
#[test]
fn largest_sums_of_products_stay_exact() {
    let (devices, mut r) = (devices(), Random(6));
    for size in [GroupSize::Along(32), GroupSize::Along(128), GroupSize::WholeRow] {
        for m in [2, 13] {
            check_w4(&mut r, &devices, (m, 35, 700), size, Hostility::OneSign);
        }
    }
}

/// Tokens of a task, panels that tokens pass over together and the block of K each have a border of their own; real models
/// cross all of them in one product.
const LARGE: [(usize, usize, usize); 3] = [(40, 300, 1_100), (530, 70, 1_100), (33, 64, 2_000)];

#[test]
fn blocks_of_k_meet_where_there_are_many_panels_and_many_tokens() {
    let (devices, mut r) = (devices(), Random(9));
    for shape in LARGE {
        check_w4(&mut r, &devices, shape, GroupSize::Along(128), Hostility::Random);
        check_w8(&mut r, &devices, shape, Hostility::Random);
    }
}

#[test]
fn blocks_of_tokens_and_panels_meet_without_gaps() {
    let (devices, mut r) = (devices(), Random(3));
    for (m, n) in [(239, 33), (240, 32), (241, 31), (251, 131), (1, 1_031)] {
        check_w4(
            &mut r,
            &devices,
            (m, n, 40),
            GroupSize::Along(32),
            Hostility::Random,
        );
    }
    // Enough work that threads share it.
    for shape in [(250, 200, 256), (1, 4_099, 130)] {
        check_w4(&mut r, &devices, shape, GroupSize::Along(128), Hostility::Random);
    }
}

#[test]
fn w8a8_equals_the_specification_on_every_instruction_set() {
    let (devices, mut r) = (devices(), Random(4));
    let shapes = [
        (1, 1, 1),
        (2, 15, 3),
        (3, 16, 4),
        (4, 17, 5),
        (5, 33, 127),
        (11, 31, 128),
        (12, 32, 129),
        (13, 48, 64),
        (0, 17, 5),
    ];
    for shape in shapes
        .into_iter()
        .chain([(17, 35, 257), (241, 17, 96), (13, 33, 1_100), (2, 7, 28_672)])
    {
        check_w8(&mut r, &devices, shape, Hostility::Extreme);
    }
}

#[test]
fn token_of_zeros_gives_the_bias() {
    let mut r = Random(5);
    let layer = w4_layer(&mut r, (19, 70), GroupSize::Along(64), Hostility::Random);
    let expected = layer.bias().map_or(vec![0.0; 19], <[f32]>::to_vec);
    for device in devices() {
        let (acc, d) = run(&device, weights(&layer), &[0; 70], &[0.0]);
        assert!(acc.iter().all(|&sum| sum == 0));
        assert_eq!(d, expected, "{}", name(&device));
    }
}

#[test]
fn a_product_that_adds_gives_the_bits_of_the_product_and_then_the_sum() {
    let (devices, mut r) = (devices(), Random(9));
    for (m, n, k) in [
        (1, 1, 1),
        (1, 100, 300),
        (5, 33, 65),
        (13, 47, 130),
        (40, 300, 1_100),
    ] {
        for how in HOSTILITIES {
            let w4 = weights(&w4_layer(&mut r, (n, k), GroupSize::Along(32), how));
            let w8 = LinearWeights::W8(w8_layer(&mut r, (n, k)));
            let (codes, ta) = activations(&mut r, (m, k), how);
            let mut before = r.floats(m * n);
            before[0] = f32::INFINITY;
            for (layer, device) in [w4, w8].iter().flat_map(|l| devices.iter().map(move |b| (l, b))) {
                let packed = device.pack(layer.clone()).unwrap();
                let mut expected = before.clone();
                let mut added = product(device, (&packed, k), &codes, &ta).1;
                if matches!(layer, LinearWeights::W4(_)) {
                    added.iter_mut().for_each(|v| *v = naive::to_bf16(*v));
                }
                naive::add(&mut expected, &added);
                let mut a = device.quantized(m, k).unwrap();
                device.upload_int8(&mut a, &codes, &ta);
                let (mut x, mut y) = (device.matrix(m, n).unwrap(), device.matrix(m, n).unwrap());
                device.upload(&mut x, &before).unwrap();
                device
                    .gemm_add(&mut x, &mut y, Operand::Int8(&a), &packed)
                    .unwrap();
                let mut got = vec![0.0; m * n];
                device.download(&x, 0..m, &mut got).unwrap();
                assert_same(
                    &got,
                    &expected,
                    &format!("{m}x{n}x{k} {how:?} on {}", name(device)),
                );
            }
        }
    }
}

#[test]
fn gated_product_equals_the_specification() {
    let (devices, mut r) = (devices(), Random(8));
    // Whole runs of panels (64 features), several tasks, and features that fit neither.
    for (m, n, k) in [
        (1, 64, 40),
        (9, 64, 130),
        (33, 128, 96),
        (50, 640, 257),
        (530, 192, 64),
        (20, 96, 64),
        (20, 34, 64),
        (40, 320, 1_100),
        (520, 64, 1_100),
    ] {
        for f in [
            Activation::Silu,
            Activation::Gelu,
            Activation::GeluTanh,
            Activation::Relu,
            Activation::Clamped(GateLimit::new(0.4).unwrap()),
        ] {
            let how = Hostility::Random;
            let layer = w4_layer(&mut r, (n, k), GroupSize::Along(64), how);
            let (codes, ta) = activations(&mut r, (m, k), how);
            let (_, mut d) = naive_w4(&layer, &codes, &ta);
            d.iter_mut().for_each(|v| *v = naive::to_bf16(*v));
            let mut expected = vec![0.0; m * n / 2];
            for (out, d) in expected.chunks_exact_mut(n / 2).zip(d.chunks_exact(n)) {
                naive::gated(d, f, out);
            }
            for device in &devices {
                let packed = device.pack(weights(&layer)).unwrap();
                let mut a = device.quantized(m, k).unwrap();
                device.upload_int8(&mut a, &codes, &ta);
                let (mut wide, mut out) = (device.matrix(m, n).unwrap(), device.matrix(m, n / 2).unwrap());
                device
                    .gemm_gated(&mut out, &mut wide, Operand::Int8(&a), &packed, f)
                    .unwrap();
                let mut got = vec![0.0; m * n / 2];
                device.download(&out, 0..m, &mut got).unwrap();
                let words = format!("{} {m}x{n}x{k} {f:?}", name(device));
                assert_same(&got, &expected, &words);
                device
                    .gemm_rounded(&mut wide, Operand::Int8(&a), &packed)
                    .unwrap();
                let mut got = vec![0.0; m * n];
                device.download(&wide, 0..m, &mut got).unwrap();
                assert_same(&got, &d, &words);
            }
        }
    }
}

/// The head of a large vocabulary is packed slice by slice; products must not see where it was cut.
#[test]
fn layer_packed_in_slices_equals_the_specification() {
    let (devices, mut r) = (devices(), Random(10));
    let (m, n, k) = (13, 4 * SLICE_ROWS + 21, 200);
    let w4 = w4_layer(&mut r, (n, k), GroupSize::Along(64), Hostility::Random);
    let w8 = w8_layer(&mut r, (n, k));
    let (codes, ta) = activations(&mut r, (m, k), Hostility::Random);
    let expected_w4 = naive_w4(&w4, &codes, &ta);
    let (mut acc, mut d) = (vec![0; m * n], vec![0.0; m * n]);
    naive::gemm_w8a8(&codes, &ta, &w8, &mut acc, &mut d);
    for (layer, expected) in [(weights(&w4), expected_w4), (LinearWeights::W8(w8), (acc, d))] {
        for device in &devices {
            let got = product(device, (&pack_in_slices(device, &layer), k), &codes, &ta);
            assert_eq!(got.0, expected.0, "sums of {}", name(device));
            assert_same(&got.1, &expected.1, &name(device));
        }
    }
}
