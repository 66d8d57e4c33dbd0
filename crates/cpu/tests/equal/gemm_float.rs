//! Float products: equal bits whatever the tile, the blocking and the number of threads.

use dualgrain_device::{Device, Operand, SLICE_ROWS, naive};
use dualgrain_format::{FloatLinear, FloatValues, LinearWeights};
use half::bf16;

use super::cases::{Random, assert_same, devices, name, pack_in_slices};

#[test]
fn float_products_equal_the_specification_on_every_instruction_set() {
    let (devices, mut r) = (devices(), Random(11));
    // Around the tiles (1..12 rows, 16 and 32 columns), the row blocks (up to 240), the unpacked rows (24) and kc (256).
    let shapes = [
        (1, 1, 1),
        (1, 16, 5),
        (1, 130, 257),
        (2, 64, 64),
        (2, 65, 300),
        (3, 17, 33),
        (5, 31, 256),
        (6, 32, 255),
        (7, 33, 257),
        (11, 48, 70),
        (12, 47, 64),
        (13, 5, 513),
        (24, 37, 300),
        (25, 37, 300),
        (119, 33, 40),
        (120, 64, 258),
        (121, 50, 512),
        (239, 35, 257),
        (240, 33, 31),
        (241, 50, 290),
        (245, 100, 19),
        (500, 70, 40),
        // Its last block has one row.
        (4561, 70, 290),
        (3, 4 * SLICE_ROWS + 5, 40),
        (4, 4 * SLICE_ROWS + 21, 30),
    ];
    for (case, (m, n, k)) in shapes.into_iter().enumerate() {
        let values = r.floats(n * k);
        let weight = match case % 2 {
            0 => FloatValues::F32(values),
            _ => FloatValues::Bf16(values.iter().map(|v| bf16::from_f32(*v)).collect()),
        };
        let bias = (case % 3 == 0).then(|| r.floats(n));
        let layer = FloatLinear::new(n, k, weight, bias).unwrap();
        let a = r.floats(m * k);
        let mut expected = vec![0.0; m * n];
        naive::gemm_float(&a, &layer, &mut expected);
        for device in &devices {
            let weights = LinearWeights::Float(layer.clone());
            let packed = match n > 4 * SLICE_ROWS {
                true => pack_in_slices(device, &weights),
                false => device.pack(weights).unwrap(),
            };
            let (mut x, mut out) = (device.matrix(m, k).unwrap(), device.matrix(m, n).unwrap());
            device.upload(&mut x, &a).unwrap();
            device.gemm(&mut out, Operand::Float(&x), &packed).unwrap();
            let mut got = vec![0.0; m * n];
            device.download(&out, 0..m, &mut got).unwrap();
            assert_same(&got, &expected, &format!("{} {m}x{n}x{k}", name(device)));
        }
    }
}
