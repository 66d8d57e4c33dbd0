//! Packages of others read the same weights, and compute the same.

use std::path::Path;
use std::process::Command;

use dualgrain_format::checkpoint::{Dtype, FolderWriter, TensorSpec, f32_bytes};
use dualgrain_testing::skipped;
use serde_json::Value;

use crate::models::{in_floats, logits, mixed, quantized, scratch, tokens_of};
use crate::program::{self, stderr, text};
use crate::run;

/// Names a Python that has torch, transformers, compressed-tensors and gguf.
const PYTHON: &str = "DUALGRAIN_TRANSFORMERS";

/// The object that a script of `oracle` prints; `None`, said, where Python lacks what it needs.
pub fn oracle(arguments: &[&str]) -> Option<Value> {
    let Some(python) = std::env::var_os(PYTHON).filter(|python| !python.is_empty()) else {
        skipped(
            "transformers",
            format_args!(
                "{PYTHON} names no Python that has torch, transformers, compressed-tensors and gguf"
            ),
        );
        return None;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle/check_export.py");
    let output = Command::new(python).arg(script).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    let printed = program::stdout(&output);
    println!("{arguments:?}: {printed}");
    Some(serde_json::from_str(printed.trim()).unwrap())
}

#[test]
fn packages_of_others_read_the_same_weights() {
    // bf16 has 8 bits; the head is in it wherever it is no GGUF. A minimum of Q4_1 is rounded too.
    let bounds = [
        ("hf", 3.95e-3),
        ("compressed-tensors", 3.95e-3),
        ("compressed-tensors-w4a16", 3.95e-3),
        ("gguf", 9e-3),
    ];
    for (name, folder) in [("usual", quantized()), ("mixed", mixed())] {
        for (format, bound) in bounds {
            let out = scratch(&format!("packages-{name}-{format}")).join("out");
            run(folder, format, &out);
            let Some(found) = oracle(&["weights", text(folder), text(&out)]) else {
                return;
            };
            assert!(
                found["max_relative_error"].as_f64().unwrap() < bound,
                "{name} {format}: {found}"
            );
            assert!(found["linears"].as_u64().unwrap() > 40);
        }
    }
}

#[test]
fn transformers_computes_what_we_compute_in_floats() {
    for (name, folder) in [("usual", quantized()), ("mixed", mixed())] {
        let scratch = scratch(&format!("transformers-{name}"));
        let (out, dump) = (scratch.join("out"), scratch.join("dump"));
        run(folder, "compressed-tensors-w4a16", &out);
        let ids = tokens_of(dualgrain::SAMPLE_EVALUATION, folder, 512);
        write_dump(&dump, &ids, &logits(&in_floats(folder), &ids));
        for dtype in ["float32", "bfloat16"] {
            let file = dump.join("model.safetensors");
            let Some(found) = oracle(&["logits", text(&out), text(&file), "--dtype", dtype]) else {
                return;
            };
            assert!(
                found["mean_kl"].as_f64().unwrap() <= 0.005,
                "{name} {dtype}: {found}"
            );
        }
    }
}

/// Tokens and logits for the oracle.
pub fn write_dump(out: &Path, ids: &[u32], logits: &[f32]) {
    let spec = |name: &str, dtype, shape: &[usize]| TensorSpec {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
    };
    let mut writer = FolderWriter::create(out, false).unwrap();
    let specs = vec![
        spec("ids", Dtype::I64, &[ids.len()]),
        spec("logits", Dtype::F32, &[ids.len(), logits.len() / ids.len()]),
    ];
    writer.start_tensors(specs).unwrap();
    let ids: Vec<u8> = ids.iter().flat_map(|&id| i64::from(id).to_le_bytes()).collect();
    writer.write_tensor("ids", &ids).unwrap();
    writer.write_tensor("logits", &f32_bytes(logits)).unwrap();
    writer.commit().unwrap();
}
