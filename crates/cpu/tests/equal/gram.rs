//! Gram matrices and the squared errors of outputs.

use dualgrain_device::{Device, Gram, Statistics, naive};
use dualgrain_format::{FloatLinear, FloatValues};

use super::cases::{Random, assert_same, devices, name};

#[test]
fn gram_matrices_equal_the_specification_and_leave_the_upper_triangle_alone() {
    let (devices, mut r) = (devices(), Random(21));
    // Around the output tiles (8, 6, 48) and the token block (256).
    for (tokens, k) in [
        (1, 1),
        (3, 7),
        (5, 47),
        (255, 48),
        (256, 49),
        (257, 31),
        (300, 97),
        (513, 130),
        (20, 300),
    ] {
        let (first, second) = (r.floats(tokens * k), r.floats(2 * k));
        let mut expected = vec![0.0; k * k];
        naive::gram_accumulate(&mut expected, &first, k);
        naive::gram_accumulate(&mut expected, &second, k);
        for device in &devices {
            let (mut gram, mut x) = (device.gram(k).unwrap(), device.matrix(tokens.max(2), k).unwrap());
            for part in [&first, &second] {
                device.upload(&mut x, part).unwrap();
                device.gram_accumulate(&mut gram, &x).unwrap();
            }
            let gram = device.gram_to_host(gram).unwrap();
            assert_same(
                gram.values(),
                &expected,
                &format!("{} {tokens} tokens, k = {k}", name(device)),
            );
            assert_eq!(gram.num_tokens(), tokens + 2);
        }
    }
}

#[test]
fn sums_over_two_inputs_equal_the_specification_and_the_product_of_their_columns() {
    let (devices, mut r) = (devices(), Random(23));
    // Around the tiles (12, 6 rows; 16, 32 lanes), the tasks (120 and 240 rows, 256 and 512 columns) and the slice of tokens (256).
    for (tokens, k, n) in [
        (1, 1, 1),
        (3, 7, 17),
        (255, 13, 33),
        (256, 48, 31),
        (257, 28, 16),
        (513, 12, 5),
        (40, 121, 257),
        (30, 130, 530),
        (9, 1700, 1100),
    ] {
        let (x, y) = (r.floats(tokens * k), r.floats(tokens * n));
        let before = r.floats(k * n);
        let mut expected = before.clone();
        naive::cross_accumulate(&mut expected, (&x, k), (&y, n));
        let case = format!("{tokens} tokens, {k} x {n}");
        // The naive device's own is the specification's loop; a product of columns must give the same.
        let mut turned = before.clone();
        let column = |rows: &[f32], width: usize| -> Vec<f32> {
            (0..width)
                .flat_map(|c| rows.iter().skip(c).step_by(width).copied())
                .collect()
        };
        let layer = FloatLinear::new(n, tokens, FloatValues::F32(column(&y, n)), None).unwrap();
        let mut product = vec![0.0; k * n];
        naive::gemm_float(&column(&x, k), &layer, &mut product);
        naive::add(&mut turned, &product);
        assert_same(&turned, &expected, &format!("as a product, {case}"));
        for device in &devices {
            let (mut on_device, mut sums) = (device.matrix(tokens, k).unwrap(), device.matrix(k, n).unwrap());
            device.upload(&mut on_device, &x).unwrap();
            device.upload(&mut sums, &before).unwrap();
            device.cross_accumulate(&mut sums, &on_device, &y).unwrap();
            let mut got = vec![0.0; k * n];
            device.download(&sums, 0..k, &mut got).unwrap();
            assert_same(&got, &expected, &format!("{}, {case}", name(device)));
        }
    }
}

#[test]
fn output_errors_equal_the_specification_and_read_the_lower_triangle_only() {
    let (devices, mut r) = (devices(), Random(22));
    // Around the tiles (12, 6 rows; 16, 32 lanes), the row block (120) and kc (256).
    for (rows, k) in [
        (1, 1),
        (3, 5),
        (15, 11),
        (16, 12),
        (17, 13),
        (33, 25),
        (31, 119),
        (32, 121),
        (70, 260),
        (5, 530),
    ] {
        let mut gram = Gram::new(k);
        gram.values_mut().copy_from_slice(&r.floats(k * k));
        for row in 0..k {
            gram.values_mut()[row * k + row + 1..(row + 1) * k].fill(f32::NAN);
        }
        let errors = r.floats(rows * k);
        let expected: Vec<f64> = errors
            .chunks(k)
            .map(|e| naive::quadratic_row(gram.values(), e))
            .collect();
        for device in &devices {
            let (mut out, mut got) = (device.output_errors(rows).unwrap(), vec![0.0; rows]);
            let gram = device.view_gram(&gram).unwrap();
            device.compute_output_errors(&mut out, &gram, &errors).unwrap();
            device.read_output_errors(&out, &mut got).unwrap();
            assert_eq!(got, expected, "{} {rows} rows, k = {k}", name(device));
        }
    }
}

#[test]
fn no_tokens_add_nothing() {
    for device in devices() {
        let (mut x, mut sums) = (device.matrix(3, 20).unwrap(), device.matrix(20, 40).unwrap());
        device.upload(&mut x, &[1.0; 60]).unwrap();
        device.upload(&mut sums, &[0.5; 800]).unwrap();
        device.cross_accumulate(&mut sums, &x, &[1.0; 120]).unwrap();
        device.upload(&mut x, &[]).unwrap();
        device.cross_accumulate(&mut sums, &x, &[]).unwrap();
        let mut got = vec![0.0; 800];
        device.download(&sums, 0..20, &mut got).unwrap();
        assert_same(&got, &[3.5; 800], &name(&device));
    }
}
