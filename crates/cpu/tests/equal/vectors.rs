//! The twelve cases that were computed elsewhere, when the file is there.

use std::collections::HashMap;
use std::path::Path;

use dualgrain_format::{GroupSize, QuantizedLinear, QuantizedParts, int4};
use dualgrain_testing::skipped;

use super::cases::{assert_same, devices, name, weights};
use super::gemm_int::{naive_w4, run};

/// Tensors of a safetensors file as little-endian bytes with their shape.
fn read(path: &Path) -> Option<HashMap<String, Vec<u8>>> {
    let bytes = std::fs::read(path).ok()?;
    let (length, rest) = bytes.split_at(8);
    let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
    let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&rest[..length]).unwrap();
    let data = &rest[length..];
    let tensor = |value: &serde_json::Value| {
        let offset = |i: usize| value["data_offsets"][i].as_u64().unwrap() as usize;
        data[offset(0)..offset(1)].to_vec()
    };
    let tensors = header.iter().filter(|(key, _)| *key != "__metadata__");
    Some(tensors.map(|(key, value)| (key.clone(), tensor(value))).collect())
}

fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect()
}

fn i32s(bytes: &[u8]) -> Vec<i32> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|b| i32::from_le_bytes(*b))
        .collect()
}

fn pack(values: &[u8], columns: usize, padding: impl Fn(usize) -> u8) -> Vec<u8> {
    let mut packed = Vec::new();
    for (row, values) in values.chunks(columns).enumerate() {
        int4::pack_row(values, padding(row), &mut packed);
    }
    packed
}

#[test]
fn vectors_computed_elsewhere_are_reproduced_bit_for_bit() {
    let path = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../shared/format_vectors.safetensors"
    ));
    let Some(tensors) = read(path) else {
        skipped("shared", "format vectors computed elsewhere were not compared");
        return;
    };
    let devices = devices();
    for case in 0..12 {
        let tensor = |name: &str| tensors[&format!("case{case:02}.{name}")].as_slice();
        let shape: Vec<usize> = tensor("shape")
            .as_chunks()
            .0
            .iter()
            .map(|b| i64::from_le_bytes(*b) as usize)
            .collect();
        let [_, n, k, size] = shape[..] else {
            panic!("shape {shape:?}")
        };
        let groups = k.div_ceil(size);
        let zero = tensor("zero");
        let parts = QuantizedParts {
            q: pack(tensor("q"), k, |row| zero[(row + 1) * groups - 1]),
            zero: pack(zero, groups, |_| 0),
            s2: tensor("s2").to_vec(),
            s1: f32s(tensor("s1")),
            bias: Some(f32s(tensor("bias"))),
            ta: None,
        };
        let layer = QuantizedLinear::new((n, k), GroupSize::new(size).unwrap(), parts).unwrap();
        let codes: Vec<i8> = tensor("a8").iter().map(|&b| b as i8).collect();
        let ta = f32s(tensor("ta"));
        let check = |(acc, d): (Vec<i32>, Vec<f32>), who: &str| {
            assert_eq!(acc, i32s(tensor("acc")), "sums of case {case}, {who}");
            assert_same(&d, &f32s(tensor("d")), &format!("case {case}, {who}"));
        };
        check(naive_w4(&layer, &codes, &ta), "naive");
        for device in &devices {
            check(run(device, weights(&layer), &codes, &ta), &name(device));
        }
    }
}
