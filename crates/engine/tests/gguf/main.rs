//! GGUF files in the place of folders (tests/fixtures/gguf, oracle/make_gguf_fixtures.py).

#[path = "../golden/mod.rs"]
mod golden;

use std::fs;
use std::path::{Path, PathBuf};

use dualgrain_engine::tokenizer::Tokenizer;
use dualgrain_engine::{ModelConfig, ModelFolder, Storage, Weights, gguf_folder_in, is_gguf_file};
use dualgrain_format::checkpoint::f32_bytes;
use dualgrain_format::gguf::GgufFile;
use golden::{load, prefill, read_golden};
use serde_json::Value;

/// Largest difference allowed, as a part of the logits' span, as for families (families.rs).
const TOLERANCE: f32 = 1e-5;

fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/gguf", name]
        .iter()
        .collect()
}

fn expected() -> Value {
    serde_json::from_slice(&fs::read(fixture("expected.json")).unwrap()).unwrap()
}

fn fnv1a(values: &[f32]) -> String {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let hash = f32_bytes(values).into_iter().fold(0xcbf2_9ce4_8422_2325, step);
    format!("{hash:016x}")
}

#[test]
fn every_float_is_that_of_the_format() {
    let caches = tempfile::tempdir().unwrap();
    let weights = Weights::open(&gguf_folder_in(caches.path(), &fixture("model.gguf")).unwrap()).unwrap();
    let blocks = fs::read(fixture("blocks.gguf")).unwrap();
    let table = GgufFile::parse(&blocks).unwrap();
    for (name, expected) in expected().as_object().unwrap() {
        let shape: Vec<usize> = serde_json::from_value(expected["shape"].clone()).unwrap();
        let values = match table.tensors.get(name) {
            Some(tensor) => {
                let mut values = vec![0.0; shape.iter().product()];
                tensor.kind.read(&blocks[tensor.bytes.clone()], &mut values);
                values
            }
            None => weights.f32(name, &shape).unwrap(),
        };
        let first = serde_json::from_value::<Vec<f32>>(expected["first"].clone()).unwrap();
        assert_eq!(values[..4], first, "{name}");
        assert_eq!(expected["fnv1a"], fnv1a(&values), "{name}");
    }
}

#[test]
fn logits_are_those_of_transformers_for_the_floats() {
    let caches = tempfile::tempdir().unwrap();
    let folder = gguf_folder_in(caches.path(), &fixture("model.gguf")).unwrap();
    let golden = read_golden(&fixture(""));
    let model = load(&folder, ModelConfig::load(&folder).unwrap());
    let difference = golden.max_difference(&prefill(&model, &golden.ids));
    println!("max difference {difference:e}, span {}", golden.span());
    assert!(difference <= TOLERANCE * golden.span(), "{difference}");
}

#[test]
fn the_folder_has_what_a_folder_has_and_is_made_once() {
    let caches = tempfile::tempdir().unwrap();
    assert!(is_gguf_file(&fixture("model.gguf")) && !is_gguf_file(&fixture("expected.json")));
    let folder = gguf_folder_in(caches.path(), &fixture("model.gguf")).unwrap();
    assert_eq!(
        gguf_folder_in(caches.path(), &fixture("model.gguf")).unwrap(),
        folder
    );
    let judged = ModelFolder::open(&folder).unwrap();
    let said = judged.notices.concat();
    assert!(said.contains("model.gguf") && said.contains("Q5_1"), "{said}");
    let storage = Storage::measure(&judged.weights, &judged.config).unwrap();
    assert!((4.0..12.0).contains(&storage.bits_per_weight()), "{storage:?}");
    let tokenizer = Tokenizer::load(&folder, judged.config.vocab_size).unwrap();
    let the = tokenizer.token_id("\u{2581}the").unwrap();
    assert_eq!(tokenizer.encode("the", true).unwrap(), [1, the]);
    assert_eq!(tokenizer.decode(&[1, the], true).unwrap(), "the");
    assert!(
        fs::read_to_string(folder.join("tokenizer_config.json"))
            .unwrap()
            .contains("chat_template")
    );
}

/// What is said of a file of these bytes.
fn refused(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    fs::write(&path, bytes).unwrap();
    let open = |folder: &Path| ModelFolder::open(folder).map_err(|error| error.to_string());
    match gguf_folder_in(&dir.path().join("caches"), &path) {
        Ok(folder) => open(&folder).expect_err("a broken file was read"),
        Err(error) => error.to_string(),
    }
}

/// A file with other bytes in the place of some.
fn replaced(whole: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = whole
        .windows(from.len())
        .position(|window| window == from)
        .unwrap();
    [&whole[..at], to, &whole[at + from.len()..]].concat()
}

#[test]
fn vectors_in_blocks_are_refused_by_name() {
    let whole = fs::read(fixture("model.gguf")).unwrap();
    // A name's end, one size, and the number of a type: those of a vector in floats, and others in their place.
    let vector = |name: &[u8], size: u64, kind: u32| {
        let line = [
            name,
            &1_u32.to_le_bytes(),
            &size.to_le_bytes(),
            &kind.to_le_bytes(),
        ];
        line.concat()
    };
    let norm = |kind| vector(b"output_norm.weight", 32, kind);
    let factors = |size, kind| vector(b"rope_freqs.weight", size, kind);
    for (from, to, words) in [
        (norm(0), norm(8), "`output_norm.weight` of shape [32]"),
        (
            factors(8, 0),
            factors(32, 2),
            "`rope_freqs.weight` is stored in blocks",
        ),
    ] {
        let text = refused(&replaced(&whole, &from, &to));
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn damaged_files_are_refused_in_words() {
    let whole = fs::read(fixture("model.gguf")).unwrap();
    for len in [4, 100, 1000, whole.len() / 2, whole.len() - 100] {
        let text = refused(&whole[..len]);
        assert!(
            text.contains("model.gguf") && text.contains("cut short"),
            "{text}"
        );
    }
    let with = |from: &[u8], to: &[u8]| replaced(&whole, from, to);
    for (from, to, words) in [
        (
            &b"\x05\0\0\0\0\0\0\0llama"[..],
            &b"\x05\0\0\0\0\0\0\0mamba"[..],
            "mamba",
        ),
        (b"blk.0.ffn_up.weight", b"blk.0.ffn_xx.weight", "up_proj"),
        (b"tokenizer.ggml.scores", b"tokenizer.ggml.scorex", "scores"),
        (b"llama.context_length", b"llama.context_lengtx", "context_lengtx"),
        (b"blk.0.attn_v.weight", b"blk.0.attn_q.weight", "twice"),
        (b"blk.0.attn_norm.weight", b"blk.0000.attn_q.weight", "twice"),
    ] {
        let text = refused(&with(from, to));
        assert!(text.contains(words), "{text}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    fs::write(&path, &whole).unwrap();
    let folder = gguf_folder_in(&dir.path().join("caches"), &path).unwrap();
    fs::remove_file(&path).unwrap();
    let text = Weights::open(&folder).unwrap_err().to_string();
    assert!(text.contains("model.gguf"), "{text}");
}
