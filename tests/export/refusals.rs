//! What can not be written is refused in words, and nothing is left behind.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use dualgrain::engine::Weights;
use dualgrain_export::{ExportError, ExportFormat, Progress, Watch, export};
use dualgrain_testing::copy_folder;

use crate::models::{original, quantized, scratch, transformed};
use crate::program::{dualgrain, failure, stderr, text};

#[test]
fn what_a_format_has_no_place_for_is_refused_by_name_and_nothing_is_written() {
    let opt = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/engine/tests/fixtures/families/opt");
    for (folder, format, expected) in [
        (transformed(), "compressed-tensors", "`hadamard_down` 128"),
        (transformed(), "gguf", "`hadamard_down` 128"),
        (&*original(), "hf", "it is not quantized"),
        (
            &*original(),
            "compressed-tensors-w4a16",
            "--format gguf takes floats too",
        ),
        (
            &*opt,
            "gguf",
            "the family OPT: expected Llama, Mistral, Mixtral, Qwen2",
        ),
        (Path::new("nowhere"), "hf", "nowhere: no such model folder"),
    ] {
        let out = scratch("refused").join("out");
        let message = failure(&["export", text(folder), "--format", format, "--out", text(&out)]);
        assert!(message.contains(expected), "{message}");
        assert!(fs::read_dir(out.parent().unwrap()).unwrap().next().is_none());
    }
}

#[test]
fn an_output_that_is_there_stays_as_it_is() {
    let out = scratch("there");
    fs::write(out.join("letter.txt"), "dear").unwrap();
    let message = failure(&[
        "export",
        text(quantized()),
        "--format",
        "gguf",
        "--out",
        text(&out),
    ]);
    assert!(
        message.contains("exists and is not empty: choose another folder with --out"),
        "{message}"
    );
    assert_eq!(fs::read_to_string(out.join("letter.txt")).unwrap(), "dear");
    let file = scratch("there-file").join("a.gguf");
    let message = failure(&[
        "export",
        text(quantized()),
        "--format",
        "gguf",
        "--out",
        text(&file),
    ]);
    assert!(
        message.contains("--out names a folder; the file in it will be model.gguf"),
        "{message}"
    );
}

#[test]
fn an_unknown_format_is_wrong_usage_that_lists_the_known_ones() {
    let output = dualgrain(&["export", "a", "--format", "onnx", "--out", "b"]);
    assert_eq!(output.status.code(), Some(2));
    let message = stderr(&output);
    assert!(
        message.contains("hf, compressed-tensors, compressed-tensors-w4a16, gguf"),
        "{message}"
    );
}

#[test]
fn a_missing_tensor_is_named() {
    let folder = scratch("missing").join("model");
    copy_folder(quantized(), &folder);
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let (old, new) = (
        b"model.layers.4.mlp.up_proj.s2\"",
        b"model.layers.4.mlp.up_proj.s3\"",
    );
    let place = bytes.windows(old.len()).position(|window| window == old).unwrap();
    let renamed = [&bytes[..place], new, &bytes[place + old.len()..]].concat();
    fs::write(&path, renamed).unwrap();
    let out = folder.with_file_name("out");
    for format in ["hf", "compressed-tensors", "gguf"] {
        let message = failure(&["export", text(&folder), "--format", format, "--out", text(&out)]);
        assert!(
            message.contains("`model.layers.4.mlp.up_proj.s2` is missing"),
            "{message}"
        );
        assert!(!out.exists());
    }
}

#[test]
fn a_scale_beyond_16_bits_is_named() {
    let folder = scratch("scale").join("model");
    copy_folder(quantized(), &folder);
    let path = folder.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let place = {
        let weights = Weights::open(&folder).unwrap();
        let (_, _, s1) = weights.raw("model.layers.0.self_attn.k_proj.s1").unwrap();
        bytes
            .windows(s1.len())
            .position(|window| window == &s1[..])
            .unwrap()
    };
    bytes[place + 8..place + 12].copy_from_slice(&1e6_f32.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    for format in ["compressed-tensors", "gguf"] {
        let out = folder.with_file_name("out");
        let message = failure(&["export", text(&folder), "--format", format, "--out", text(&out)]);
        assert!(
            message.contains("`model.layers.0.self_attn.k_proj`, row "),
            "{message}"
        );
        assert!(message.contains("overflows as a 16-bit float"), "{message}");
        assert!(!out.exists());
    }
}

#[test]
fn an_export_that_is_cancelled_leaves_nothing() {
    for format in [
        ExportFormat::Hf,
        ExportFormat::CompressedTensors,
        ExportFormat::Gguf,
    ] {
        let out = scratch("cancelled").join("out");
        let (cancel, seen) = (AtomicBool::new(false), Cell::new(0));
        let watch = |progress: Progress<'_>| {
            assert!(progress.done <= progress.total);
            seen.set(seen.get() + 1);
            cancel.store(seen.get() == 20, Ordering::Relaxed);
        };
        let error = export(quantized(), &out, format, Watch::new(&watch, &cancel)).unwrap_err();
        assert!(matches!(error, ExportError::Cancelled), "{error}");
        assert!(fs::read_dir(out.parent().unwrap()).unwrap().next().is_none());
    }
}
