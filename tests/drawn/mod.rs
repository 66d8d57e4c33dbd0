//! Small models of every family, as transformers saves them (tests/folders/saved/README.md), with weights that are drawn here.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};

use dualgrain_device::cases::Random;
use dualgrain_format::checkpoint::{Dtype, FolderWriter, TensorSpec};
use serde_json::Value;

/// What transformers saved.
pub fn saved() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/folders/saved")
}

/// A row for each family: its name, its tokenizer, its configurations, its tensors.
pub fn families() -> Vec<Value> {
    let lines = fs::read_to_string(saved().join("families.jsonl")).unwrap();
    let rows = lines.lines().map(|line| serde_json::from_str(line).unwrap());
    rows.collect()
}

/// The row of a family, all of whose layers are alike, with as many of them.
pub fn family(name: &str, num_layers: usize) -> Value {
    let mut row = families().into_iter().find(|row| row["family"] == name).unwrap();
    row["config"]["num_hidden_layers"] = num_layers.into();
    row
}

/// Writes the folder of a family.
pub fn write(row: &Value, folder: &Path) {
    let mut writer = FolderWriter::create(folder, true).unwrap();
    for name in ["config", "generation_config"] {
        if row[name].is_object() {
            let text = row[name].to_string();
            writer
                .write_file(&format!("{name}.json"), text.as_bytes())
                .unwrap();
        }
    }
    let tokenizer = saved()
        .join("tokenizers")
        .join(row["tokenizer"].as_str().unwrap());
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let bytes = fs::read(tokenizer.join(name)).unwrap();
        writer.write_file(name, &bytes).unwrap();
    }
    let tensors = tensors(row);
    writer.start_tensors(tensors.clone()).unwrap();
    let mut random = Random(1);
    for TensorSpec { name, shape, .. } in tensors {
        let bytes = drawn(&name, shape.iter().product(), &mut random);
        writer.write_tensor(&name, &bytes).unwrap();
    }
    writer.commit().unwrap();
}

/// All tensors with their shapes.
fn tensors(row: &Value) -> Vec<TensorSpec> {
    let count = |names: &[&str]| {
        let found = names.iter().find_map(|&name| row["config"][name].as_u64());
        found.unwrap_or(0)
    };
    let layers = count(&["num_hidden_layers", "n_layer"]);
    let experts = count(&["num_experts", "num_local_experts", "n_routed_experts"]);
    let mut tensors = Vec::new();
    for (name, shape) in row["tensors"].as_object().unwrap() {
        let shape: Vec<usize> = serde_json::from_value(shape.clone()).unwrap();
        let of_layers = copies(name, '*', layers).into_iter();
        let names = of_layers.flat_map(|name| copies(&name, '#', experts));
        tensors.extend(names.map(|name| TensorSpec {
            name,
            dtype: Dtype::BF16,
            shape: shape.clone(),
        }));
    }
    tensors
}

/// The name with each number below `count` in the place of `sign`, or the name alone where it has no such sign.
fn copies(name: &str, sign: char, count: u64) -> Vec<String> {
    match name.contains(sign) {
        true => (0..count).map(|i| name.replace(sign, &i.to_string())).collect(),
        false => vec![name.to_owned()],
    }
}

/// Values as bf16, of norms near one.
fn drawn(name: &str, len: usize, random: &mut Random) -> Vec<u8> {
    let is_norm = name.ends_with("weight") && (name.contains("norm") || name.contains("ln_f"));
    let (center, spread) = if is_norm { (1.0, 0.2) } else { (0.0, 0.15) };
    let value = |_| center + spread * random.float();
    let upper_half = |value: f32| ((value.to_bits() >> 16) as u16).to_le_bytes();
    (0..len).map(value).flat_map(upper_half).collect()
}
