//! Folders that other programs quantized: every verb takes them as the floats that their codes mean, and says so once.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::program::{dualgrain, scratch, stderr, stdout, text};
use crate::weights::{Stored, save, tensors, widened};
use crate::{answer, assert_judged, assert_refused, folder, patch};

/// What compressed-tensors writes for eight bits and a scale an output.
fn eight_bits() -> Value {
    json!({"quant_method": "compressed-tensors", "format": "int-quantized", "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "int", "symmetric": true, "strategy": "channel"}}}})
}

/// Codes and scales of a linear's rows, and the floats that they mean.
fn rounded((name, _, shape, bytes): &Stored) -> ([Stored; 2], Stored) {
    let values = widened(bytes);
    let values: Vec<f32> = values
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    let (mut codes, mut scales, mut floats) = (Vec::new(), Vec::new(), Vec::new());
    for row in values.chunks_exact(shape[1]) {
        let most = row.iter().fold(0.0, |most: f32, value| most.max(value.abs()));
        let scale = most / 127.0;
        scales.extend(scale.to_le_bytes());
        for value in row {
            let code = (value / scale).round() as i8;
            codes.push(code as u8);
            floats.extend((f32::from(code) * scale).to_le_bytes());
        }
    }
    let scale = (
        format!("{name}_scale"),
        "F32".to_owned(),
        vec![shape[0], 1],
        scales,
    );
    let codes = (name.clone(), "I8".to_owned(), shape.clone(), codes);
    (
        [codes, scale],
        (name.clone(), "F32".to_owned(), shape.clone(), floats),
    )
}

/// Rounds the linears of the blocks; `packed` keeps codes and scales, else the floats are written.
fn round_linears(folder: &Path, packed: bool) {
    let mut all = Vec::new();
    for tensor in tensors(folder) {
        if !tensor.0.starts_with("model.layers.") || tensor.2.len() != 2 {
            all.push(tensor);
            continue;
        }
        match (rounded(&tensor), packed) {
            ((parts, _), true) => all.extend(parts),
            ((_, floats), false) => all.push(floats),
        }
    }
    save(&folder.join("model.safetensors"), &all);
}

const SAID: &str = "was quantized before by compressed-tensors";

#[test]
fn every_verb_takes_a_quantized_folder_as_its_floats_and_says_so_once() {
    let floats = folder("foreign_floats", |folder| round_linears(folder, false));
    let packed = folder("foreign_packed", |folder| {
        round_linears(folder, true);
        patch(
            folder,
            "config.json",
            json!({"quantization_config": eight_bits()}),
        );
    });
    let (expected, _) = answer(&floats, &[]);
    let (tokens, said) = answer(&packed, &[]);
    assert_eq!(tokens, expected);
    assert_eq!(said.matches(SAID).count(), 1, "{said}");
    for said in assert_judged(&packed) {
        assert!(said.matches(SAID).count() <= 1, "{said}");
    }
    let shown = stdout(&dualgrain(&["inspect", text(&packed)]));
    assert!(shown.contains("42 compressed-tensors (8 bits"), "{shown}");
}

#[test]
fn quantizing_a_quantized_folder_gives_one_of_ours() {
    let packed = folder("foreign_again", |folder| {
        round_linears(folder, true);
        patch(
            folder,
            "config.json",
            json!({"quantization_config": eight_bits()}),
        );
    });
    let out = scratch("folders", "foreign_out").join("out");
    let quantizing = [
        "quantize",
        text(&packed),
        "--out",
        text(&out),
        "--search",
        "rtn",
        "--windows",
        "2",
    ];
    let output = dualgrain(&quantizing);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output).matches(SAID).count(), 1, "{}", stderr(&output));
    let (_, said) = answer(&out, &[]);
    assert!(!said.contains(SAID), "{said}");
    let config = fs::read_to_string(out.join("config.json")).unwrap();
    assert!(config.contains("dualgrain") && !config.contains("compressed-tensors"));
}

#[test]
fn methods_and_fields_that_are_not_read_are_refused_by_name() {
    for (quantization, words) in [
        (
            json!({"quant_method": "bitsandbytes", "load_in_8bit": true}),
            ["config.json", "bitsandbytes"],
        ),
        (
            json!({"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemv"}),
            ["`version`", "gemv"],
        ),
        (
            json!({"quant_method": "gptq", "bits": 5, "group_size": 128}),
            ["`bits` is 5", "2, 3, 4 or 8"],
        ),
    ] {
        let model = folder("foreign_refused", |folder| {
            patch(
                folder,
                "config.json",
                json!({"quantization_config": quantization}),
            );
        });
        assert_refused(&model, &words);
    }
}

#[test]
fn a_gguf_file_stands_for_a_folder() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/engine/tests/fixtures/gguf/model.gguf");
    let caches = scratch("folders", "gguf_caches");
    for (arguments, shown) in [
        (&["inspect", text(&file)][..], "5 gguf"),
        (
            &[
                "generate",
                text(&file),
                "the",
                "--max-tokens",
                "2",
                "--threads",
                "1",
            ],
            "",
        ),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_dualgrain"))
            .args(arguments)
            .env("XDG_CACHE_HOME", &caches)
            .output()
            .expect("starting dualgrain");
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(
            stdout(&output).contains(shown),
            "{arguments:?}: {}",
            stdout(&output)
        );
    }
    assert!(caches.join("dualgrain/gguf").is_dir());
}
