//! A hash of the logits of every family fixture, in every cache format and on every instruction set of this machine: two
//! builds that print the same lines compute the same bits.
//!
//!     cargo run --release -p dualgrain-engine --example logit_hashes -- [MODEL_DIR ...] > hashes.txt
//!
//! Each line: model, cache, instruction set, FNV-1a hash of the bits of the logits. A MODEL_DIR is run on 200 tokens.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualgrain_cpu::{CpuDevice, Isa};
use dualgrain_device::{CacheFormat, Device};
use dualgrain_engine::{LoadOptions, Model, Session, SessionLimits};

/// Tokens of a prompt, where the model has positions for them; run in steps of STEP_TOKENS, then one by one.
const PROMPT_TOKENS: usize = 190;
const STEP_TOKENS: usize = 64;
const DECODE_TOKENS: usize = 10;

fn main() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(&fixtures)
        .expect("the fixtures")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.join("config.json").exists())
        .collect();
    folders.sort();
    folders.extend(std::env::args_os().skip(1).map(PathBuf::from));
    for folder in &folders {
        for (name, cache) in [
            ("stored", None),
            ("f32", Some(CacheFormat::F32)),
            ("f16", Some(CacheFormat::F16)),
            ("int8", Some(CacheFormat::Int8)),
        ] {
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
                let hash = hash_of(folder, isa, cache.clone());
                let model = folder.file_name().unwrap_or_default().to_string_lossy();
                println!("{model} {name} {} {hash:016x}", isa.name());
            }
        }
    }
}

fn hash_of(folder: &Path, isa: Isa, cache: Option<CacheFormat>) -> u64 {
    let device = Arc::new(CpuDevice::with_isa(2, isa).expect("an available instruction set"));
    let model = Arc::new(
        Model::load(
            device,
            folder,
            &LoadOptions {
                cache,
                ..LoadOptions::default()
            },
        )
        .expect("a sound folder"),
    );
    let context_tokens = (PROMPT_TOKENS + DECODE_TOKENS).min(model.config().max_positions);
    let limits = SessionLimits::new(1, context_tokens, STEP_TOKENS);
    let mut session = Session::new(Arc::clone(&model), limits).expect("a session");
    let vocab_size = model.config().vocab_size;
    let tokens: Vec<u32> = (0..limits.context_tokens)
        .map(|i| ((i * 7919 + 13) % vocab_size) as u32)
        .collect();
    let (prompt, decoded) = tokens.split_at(tokens.len() - DECODE_TOKENS);
    let steps = prompt.chunks(STEP_TOKENS).chain(decoded.chunks(1));
    let mut hash = 0xcbf2_9ce4_8422_2325;
    for step in steps {
        session.run(&[(0, step)]).expect("a step");
        let row = step.len() as u32 - 1;
        let mut logits = vec![0.0; vocab_size];
        let on_device = session.logits(&[row]).expect("logits");
        model
            .device()
            .download(on_device, 0..1, &mut logits)
            .expect("a download");
        for byte in logits.iter().flat_map(|logit| logit.to_bits().to_le_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}
