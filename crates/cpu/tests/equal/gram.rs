//! Gram matrices and the squared errors of outputs.

use dualgrain_device::{Device, Gram, Statistics, naive};

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
