//! Models of these tests: llama-tiny quantized in several ways, and what they compute.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use dualgrain::engine::tokenizer::Tokenizer;
use dualgrain::engine::{InFloats, ModelConfig, ModelFolder, Session};
use dualgrain::{AnyDevice, CacheFormat, Device, DeviceChoice, Model, SessionLimits, model_in_floats};
use dualgrain_format::checkpoint::Dtype;
use dualgrain_format::{LinearScheme, LinearWeights};

use crate::drawn;
use crate::program::{self, dualgrain, stderr, text};

pub fn original() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/llama-tiny")
}

pub fn scratch(name: &str) -> PathBuf {
    program::scratch("export", name)
}

/// llama-tiny quantized with some options, quickly.
pub fn quantize(name: &str, options: &[&str]) -> PathBuf {
    quantize_model(&original(), name, options)
}

pub fn quantize_model(model: &Path, name: &str, options: &[&str]) -> PathBuf {
    let folder = scratch(name).join("model");
    let out = folder.clone();
    let usual = [
        "quantize",
        text(model),
        "--out",
        text(&out),
        "--windows",
        "2",
        "--method",
        "rtn",
    ];
    let output = dualgrain(&[&usual[..], options].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    folder
}

/// Quantized with the usual options, once for all tests.
pub fn quantized() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| quantize("quantized", &[]))
}

/// With linears of several schemes, one of them in floats.
pub fn mixed() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let options = [
        "--scheme",
        "down=w8",
        "--scheme",
        "1.up=w4/32",
        "--scheme",
        "2.out=float",
    ];
    FOLDER.get_or_init(|| quantize("mixed", &options))
}

/// With a transform before down.
pub fn transformed() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| quantize("transformed", &["--hadamard-down", "--scheme", "1.down=float"]))
}

/// A small random mixture of experts.
pub fn mixture() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let model = scratch("mixture-in-floats").join("model");
        drawn::write(&drawn::family("qwen3_moe", 2), &model);
        quantize_model(&model, "mixture", &[])
    })
}

/// Every linear in integers: its name and its weights, read as the program reads them.
pub fn linears(folder: &Path) -> Vec<(String, LinearWeights)> {
    let ModelFolder { config, weights, .. } = ModelFolder::open(folder).unwrap();
    let quantization = config.quantization.as_ref().unwrap();
    let listed = quantization
        .linears
        .iter()
        .filter(|(_, scheme)| **scheme != LinearScheme::Float);
    let read = |(name, _): (&String, &LinearScheme)| {
        let q = ["q", "w8"]
            .into_iter()
            .find_map(|part| weights.raw(&format!("{name}.{part}")).ok());
        let (dtype, shape, _) = q.unwrap();
        let k = if dtype == Dtype::U8 {
            2 * shape[1]
        } else {
            shape[1]
        };
        let linear = weights
            .linear(name, (shape[0], k), false, Some(quantization))
            .unwrap();
        (name.clone(), linear)
    };
    listed.map(read).collect()
}

pub fn device() -> Arc<AnyDevice> {
    let chosen = DeviceChoice::Cpu.open(2, &original(), 1.0).unwrap();
    Arc::new(chosen.device)
}

/// A model whose activations are floats.
pub fn in_floats(folder: &Path) -> Arc<Model<AnyDevice>> {
    let parts = InFloats {
        blocks: true,
        head: true,
    };
    let model = model_in_floats(folder, &device(), Some(CacheFormat::F32), parts);
    Arc::new(model.unwrap())
}

/// Logits [ids, vocab] of a model.
pub fn logits(model: &Arc<Model<AnyDevice>>, ids: &[u32]) -> Vec<f32> {
    let limits = SessionLimits {
        logit_rows: ids.len(),
        ..SessionLimits::new(1, ids.len(), ids.len())
    };
    let mut session = Session::new(Arc::clone(model), limits).unwrap();
    session.run(&[(0, ids)]).unwrap();
    let rows: Vec<u32> = (0..ids.len() as u32).collect();
    let mut out = vec![0.0; ids.len() * model.config().vocab_size];
    let matrix = session.logits(&rows).unwrap();
    model.device().download(matrix, 0..ids.len(), &mut out).unwrap();
    out
}

pub fn tokens_of(sample: &str, folder: &Path, count: usize) -> Vec<u32> {
    let tokenizer = Tokenizer::load(folder, ModelConfig::load(folder).unwrap().vocab_size).unwrap();
    let mut ids = tokenizer.encode(sample, true).unwrap();
    ids.truncate(count);
    ids
}

pub fn log_softmax(row: &[f32]) -> Vec<f64> {
    let most = row.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = row.iter().map(|&x| f64::from(x - most).exp()).sum();
    row.iter().map(|&x| f64::from(x - most) - sum.ln()).collect()
}

/// Mean KL divergence of the second logits from the first.
pub fn divergence(ours: &[f32], theirs: &[f32], vocab: usize) -> f64 {
    let rows = ours.chunks_exact(vocab).zip(theirs.chunks_exact(vocab));
    let of_row = |(a, b): (&[f32], &[f32])| -> f64 {
        let pairs = log_softmax(a).into_iter().zip(log_softmax(b));
        pairs.map(|(p, q)| p.exp() * (p - q)).sum()
    };
    rows.map(of_row).sum::<f64>() / (ours.len() / vocab) as f64
}
