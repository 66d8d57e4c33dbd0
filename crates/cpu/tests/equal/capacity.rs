//! Buffers hold what they were made for: more is refused alike by the specification and by every instruction set.

use dualgrain_device::naive::NaiveDevice;
use dualgrain_device::sampling::SampleRow;
use dualgrain_device::{
    Activation, ActivationScale, AttentionParams, CacheFormat, CacheShape, Device, DeviceError, Done, Gram,
    Operand, Statistics, StepLayout, StepLimits,
};
use dualgrain_format::{FloatValues, GroupSize};

use super::cases::{Hostility, Random, devices, w4_layer, weights};

const COLUMNS: usize = 32;
/// Rows an output has room for, and rows it is asked to hold.
const ROOM: usize = 4;
const ROWS: usize = 5;

fn uploaded<D: Device>(device: &D, columns: usize) -> D::Matrix {
    let mut x = device.matrix(ROWS, columns).unwrap();
    device.upload(&mut x, &vec![0.5; ROWS * columns]).unwrap();
    x
}

fn one_row<D: Device>(device: &D) -> D::Matrix {
    let mut row = device.matrix(1, COLUMNS).unwrap();
    device.upload(&mut row, &[1.0; COLUMNS]).unwrap();
    row
}

fn indices<D: Device>(device: &D) -> D::Indices {
    let mut indices = device.indices(ROWS).unwrap();
    device.upload_indices(&mut indices, &[0; ROWS]).unwrap();
    indices
}

/// Every operation with an output of another shape than its input's, given outputs that are a row short. `out` has
/// room, so that it can be seen to be as before.
fn refusals<D: Device>(device: &D, out: &mut D::Matrix) -> Vec<(&'static str, usize, Done)> {
    let mut codes = device.quantized(ROOM, COLUMNS).unwrap();
    let (x, row, ids) = (uploaded(device, COLUMNS), one_row(device), indices(device));
    let table = device
        .table(FloatValues::F32(vec![0.5; 2 * COLUMNS]), COLUMNS)
        .unwrap();
    let scale = ActivationScale::PerToken;
    let wide = uploaded(device, 2 * COLUMNS);
    vec![
        ("upload", COLUMNS, device.upload(out, &[2.0; ROWS * COLUMNS])),
        ("embed", COLUMNS, device.embed(out, &table, &ids)),
        ("rms_norm", COLUMNS, device.rms_norm(out, &x, &row, 1e-5)),
        (
            "layer_norm",
            COLUMNS,
            device.layer_norm(out, &x, &row, &row, 1e-5),
        ),
        ("quantize", COLUMNS, device.quantize(&mut codes, &x, scale)),
        ("gemm", COLUMNS, product(device, out)),
        ("attention", COLUMNS, attention(device, out)),
        ("gated", COLUMNS, device.gated(out, &wide, Activation::Silu)),
        ("gather", COLUMNS, device.gather(out, &x, &ids)),
    ]
}

fn product<D: Device>(device: &D, out: &mut D::Matrix) -> Done {
    let layer = w4_layer(
        &mut Random(3),
        (COLUMNS, COLUMNS),
        GroupSize::Along(32),
        Hostility::Random,
    );
    let packed = device.pack(weights(&layer)).unwrap();
    let mut a = device.quantized(ROWS, COLUMNS).unwrap();
    device
        .quantize(&mut a, &uploaded(device, COLUMNS), ActivationScale::PerToken)
        .unwrap();
    device.gemm(out, Operand::Int8(&a), &packed)
}

fn attention<D: Device>(device: &D, out: &mut D::Matrix) -> Done {
    let shape = CacheShape {
        num_layers: 1,
        num_kv_heads: 1,
        head_dim: COLUMNS,
        num_pages: 1,
    };
    let params = AttentionParams {
        num_heads: 1,
        scale: 1.0,
        sliding_window: None,
        soft_cap: None,
        alibi_slopes: None,
        sinks: None,
    };
    let cache = device.cache(shape, &CacheFormat::Int8).unwrap();
    let limits = StepLimits {
        tokens: ROWS,
        sequences: 1,
        pages_per_sequence: 1,
    };
    let mut step = device.step(limits).unwrap();
    let layout = StepLayout {
        positions: &[0, 1, 2, 3, 4],
        sequences: &[0; ROWS],
        page_tables: &[vec![0]],
    };
    device.upload_step(&mut step, &layout).unwrap();
    let x = uploaded(device, COLUMNS);
    device.attention(out, &x, 0..COLUMNS, &cache, 0, &params, &step)
}

fn check<D: Device>(device: &D) {
    let mut out = device.matrix(ROOM, COLUMNS).unwrap();
    let before = [3.0; ROOM * COLUMNS];
    device.upload(&mut out, &before).unwrap();
    for (name, columns, done) in refusals(device, &mut out) {
        let Err(DeviceError::Operation {
            operation,
            device: on,
            sizes,
            problem,
        }) = done
        else {
            panic!("{name} on {}: {done:?}", device.name());
        };
        let expected = (name, device.name(), format!("{ROWS} x {columns}"));
        assert_eq!((operation, on, sizes), expected);
        assert_eq!(problem, format!("its output has room for {ROOM} x {COLUMNS}"));
    }
    // Refused outputs hold what they held, and the next operation that fits is done.
    let mut after = vec![0.0; before.len()];
    device.download(&out, 0..ROOM, &mut after).unwrap();
    assert_eq!(after, before, "{}", device.name());
    device.upload(&mut out, &[4.0; ROOM * COLUMNS]).unwrap();
}

#[test]
fn outputs_without_room_are_refused_by_every_device() {
    check(&NaiveDevice::new());
    devices().iter().for_each(check);
}

fn check_elements<D: Statistics>(device: &D) {
    // Fewer rows of more columns are as many elements; one more is refused.
    let mut x = device.matrix(2, 2 * COLUMNS).unwrap();
    let table = |columns: usize| {
        device
            .table(FloatValues::F32(vec![0.5; columns]), columns)
            .unwrap()
    };
    let mut one = device.indices(1).unwrap();
    device.upload_indices(&mut one, &[0]).unwrap();
    device.embed(&mut x, &table(4 * COLUMNS), &one).unwrap();
    assert!(device.embed(&mut x, &table(4 * COLUMNS + 1), &one).is_err());
    assert_eq!(device.columns(&x), 4 * COLUMNS);
    // Output errors too.
    let mut errors = device.output_errors(1).unwrap();
    let gram = Gram::new(2);
    let view = device.view_gram(&gram).unwrap();
    device
        .compute_output_errors(&mut errors, &view, &[0.5; 2])
        .unwrap();
    let refused = device.compute_output_errors(&mut errors, &view, &[0.5; 200]);
    assert!(
        matches!(
            refused,
            Err(DeviceError::Operation {
                operation: "compute_output_errors",
                ..
            })
        ),
        "{refused:?}"
    );
    // Indices and rows to sample too.
    let mut rows = device.sample_rows(1).unwrap();
    let row = SampleRow { slot: 0, position: 1 };
    device.upload_sample_rows(&mut rows, &[row]).unwrap();
    let refused = device.upload_sample_rows(&mut rows, &[row; 100]);
    assert_eq!(
        refused.unwrap_err().to_string(),
        format!(
            "upload_sample_rows of 100 x 1 failed on {}: its output has room for 1 x 1",
            device.name()
        )
    );
    let mut ids = device.indices(ROOM).unwrap();
    let refused = device.upload_indices(&mut ids, &[0; 100]);
    assert!(
        matches!(
            refused,
            Err(DeviceError::Operation {
                operation: "upload_indices",
                ..
            })
        ),
        "{refused:?}"
    );
}

#[test]
fn rows_of_another_length_take_the_room_there_is() {
    check_elements(&NaiveDevice::new());
    devices().iter().for_each(check_elements);
}

/// Constructors that must be refused, and what their errors say.
fn check_constructors<D: Device>(device: &D) {
    let on = device.name();
    let refused = |made: Result<(), DeviceError>| made.unwrap_err().to_string();
    let table = device.table(FloatValues::F32(vec![0.5; 5]), 3).map(drop);
    assert_eq!(
        refused(table),
        format!("embedding table on {on}: expected 6 elements, got 5")
    );
    let shape = CacheShape {
        num_layers: 2,
        num_kv_heads: 3,
        head_dim: 4,
        num_pages: usize::MAX / 64,
    };
    let sizes = format!("2 layers x {} pages x 64 tokens x 3 heads x 4", shape.num_pages);
    assert_eq!(
        refused(device.cache(shape, &CacheFormat::F32).map(drop)),
        format!("KV cache of {sizes} is too large for {on}")
    );
    let format = CacheFormat::Int8Static {
        key_scales: vec![1.0],
        value_scales: vec![1.0; 2],
    };
    let shape = CacheShape {
        num_pages: 1,
        ..shape
    };
    assert_eq!(
        refused(device.cache(shape, &format).map(drop)),
        format!("static key scales on {on}: expected 2 elements, got 1")
    );
}

#[test]
fn errors_of_constructors_name_the_buffer_the_device_and_the_sizes() {
    check_constructors(&NaiveDevice::new());
    devices().iter().for_each(check_constructors);
}
