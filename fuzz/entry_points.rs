// What hostile bytes can reach, as functions of bytes: shared by the cargo-fuzz targets and by tests/fuzz.rs, which
// runs them for a short while on stable Rust. Each must return, whatever the bytes are.

use std::fs;
use std::path::Path;

use dualgrain_engine::evaluate::Task;
use dualgrain_engine::tokenizer::Tokenizer;
use dualgrain_engine::{ModelConfig, Weights};
use dualgrain_format::{ActivationScheme, CacheScheme, GroupSize, QuantizationConfig, TensorScheme};

/// Bytes as model.safetensors: the header, then every tensor read as float and as part of a quantized linear.
pub fn checkpoint(folder: &Path, data: &[u8]) {
    write(folder, "model.safetensors", data);
    let Ok(weights) = Weights::open(folder) else {
        return;
    };
    for name in weights.names() {
        if let Ok((_, shape, _)) = weights.raw(&name) {
            let shape = shape.to_vec();
            let _ = weights.float(&name, &shape);
        }
        if let Some(linear) = name.strip_suffix(".q").or(name.strip_suffix(".w8")) {
            linears(&weights, linear, &name);
        }
    }
    let _ = weights.finish();
}

/// Linear `name` in every scheme, with the shapes that its codes `codes` suggest.
fn linears(weights: &Weights, name: &str, codes: &str) {
    let Ok((_, &[n, bytes], _)) = weights.raw(codes) else {
        return;
    };
    let even = bytes.saturating_mul(2);
    for scheme in [TensorScheme::W4, TensorScheme::W8] {
        for activations in [ActivationScheme::PerToken, ActivationScheme::Static] {
            let mut config = QuantizationConfig::new(GroupSize::Along(32), activations, CacheScheme::Int8);
            config.tensors.insert(name.to_owned(), scheme);
            for k in [bytes, even, even.saturating_sub(1)] {
                for bias in [false, true] {
                    let _ = weights.linear(name, (n, k), bias, Some(&config));
                }
            }
        }
    }
}

/// Bytes as config.json.
pub fn config(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = ModelConfig::from_json(text);
    }
}

/// Bytes as tokenizer.json.
pub fn tokenizer(folder: &Path, data: &[u8]) {
    write(folder, "tokenizer.json", data);
    if let Ok(tokenizer) = Tokenizer::load(folder, 8192)
        && let Ok(ids) = tokenizer.encode("A ship, at sea: 12 knots.\n", true)
    {
        let _ = tokenizer.decode(&ids, false);
    }
}

/// Bytes as a task file.
pub fn tasks(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Task::parse(Path::new("fuzz.jsonl"), text, None);
    }
}

fn write(folder: &Path, name: &str, data: &[u8]) {
    fs::write(folder.join(name), data).expect("writing to a temporary folder");
}
