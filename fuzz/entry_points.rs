// What hostile bytes can reach, as functions of bytes: shared by the cargo-fuzz targets and by tests/fuzz.rs, which
// runs them for a short while on stable Rust. Each must return, whatever the bytes are.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use dualgrain_engine::evaluate::Task;
use dualgrain_engine::tokenizer::Tokenizer;
use dualgrain_engine::{ModelConfig, Weights};
use dualgrain_format::{ActivationScheme, CacheScheme, GroupSize, LinearScheme, QuantizationConfig};
use dualgrain_perf::{Dataset, Model, Objective, Product};
use dualgrain_quant::{Identity, Journal, JournalPolicy, QuantizedBlock};
use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};

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
    for scheme in [LinearScheme::w4(GroupSize::Along(32)), LinearScheme::W8] {
        for activations in [ActivationScheme::PerToken, ActivationScheme::Static] {
            let mut config = QuantizationConfig::new(GroupSize::Along(32), activations, CacheScheme::Int8);
            config.linears.insert(name.to_owned(), scheme);
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

/// Windows of the journal's run, and floats in a window.
const WINDOWS: (usize, usize) = (2, 3);

/// A journal of two finished blocks in `folder`, by the names of its files.
pub fn whole_journal(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let dir = folder.join("whole.journal");
    let journal = Journal::open(dir.clone(), JournalPolicy::Restart, &identity()).expect("a new journal");
    let block = QuantizedBlock {
        tensors: Vec::new(),
        cache_scales: Some([0.5, 0.25]),
        reports: vec![Default::default()],
    };
    for layer in 0..2 {
        let rows = |window: usize| Ok(vec![window as f32; WINDOWS.1]);
        let entered = journal.append(layer, &block, WINDOWS.0, rows);
        entered.expect("writing to a temporary folder");
    }
    let files = fs::read_dir(dir).expect("a journal").map(|entry| {
        let path = entry.expect("a file").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        (name.into_owned(), fs::read(&path).expect("a file"))
    });
    files.collect()
}

/// Bytes as a file of a journal whose other files are `whole`; the first byte says which.
pub fn journal(folder: &Path, whole: &[(String, Vec<u8>)], data: &[u8]) {
    let Some((which, contents)) = data.split_first() else {
        return;
    };
    let dir = folder.join("out.journal");
    fs::create_dir_all(&dir).expect("a temporary folder");
    for (index, (name, bytes)) in whole.iter().enumerate() {
        let changed = index == usize::from(*which) % whole.len();
        write(&dir, name, if changed { contents } else { bytes });
    }
    let Ok(journal) = Journal::open(dir, JournalPolicy::Resume, &identity()) else {
        return;
    };
    if let Some(last) = journal.finished_blocks(3).len().checked_sub(1) {
        let _ = journal.read_residual(last, WINDOWS.1, WINDOWS.0, |_, _| Ok(()));
    }
}

fn identity() -> Identity {
    Identity {
        entries: vec![("group size".into(), "128".into())],
    }
}

/// Bytes as a fitted model's file, and as the contents of one: a header in JSON, then trees. What can be read predicts.
pub fn perf_model(folder: &Path, data: &[u8]) {
    for file in [data, &model_file(data)] {
        write(folder, "fuzz.dgm", file);
        if let Ok(model) = Model::read(&folder.join("fuzz.dgm")) {
            for kernel in model.kernels() {
                let _ = model.ranked(kernel, &Product::new(17, 4096, 512), Objective::Edp);
            }
        }
    }
}

/// A fitted model's file with these contents: the magic word, the version, the check sum of what follows, the contents'
/// length, and the contents compressed. Without the right check sum no search would come past it.
pub fn model_file(contents: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::none());
    encoder.write_all(contents).expect("writing to memory");
    let packed = encoder.finish().expect("writing to memory");
    let length = (contents.len() as u64).to_le_bytes();
    let mut crc = Crc::new();
    crc.update(&length);
    crc.update(&packed);
    let version = 2_u32.to_le_bytes();
    [
        b"DUALGRNM",
        &version[..],
        &crc.sum().to_le_bytes(),
        &length,
        &packed,
    ]
    .concat()
}

/// Bytes as a measured set: up to the first zero byte its manifest.json, from there on its rows.csv.
pub fn perf_set(folder: &Path, data: &[u8]) {
    let end = data.iter().position(|&byte| byte == 0).unwrap_or(data.len());
    write(folder, "manifest.json", &data[..end]);
    write(folder, "rows.csv", data.get(end + 1..).unwrap_or_default());
    let _ = Dataset::read(folder);
}

fn write(folder: &Path, name: &str, data: &[u8]) {
    fs::write(folder.join(name), data).expect("writing to a temporary folder");
}
