//! Running a model folder and comparing it with logits that transformers computed.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod npz;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualgrain_cpu::CpuDevice;
use dualgrain_device::Device;
use dualgrain_engine::{LoadOptions, Model, ModelConfig, Session, SessionLimits, Weights};
use dualgrain_format::checkpoint::{FolderWriter, TensorSpec, TensorTable};

/// All fixtures of families.
pub const FAMILIES: [&str; 14] = [
    "llama2",
    "llama3",
    "llama-bias",
    "llama-linear",
    "mistral",
    "qwen2",
    "qwen2-window",
    "qwen3",
    "opt",
    "bloom",
    "bloom-6heads",
    "llama3-sharded",
    "llama2-f16",
    "qwen3-f32",
];

/// What transformers computed: logits [ids, vocab] of one forward, and an argmax continuation.
pub struct Golden {
    pub ids: Vec<u32>,
    pub logits: Vec<f32>,
    pub greedy_prompt: Vec<u32>,
    pub greedy: Vec<u32>,
}

impl Golden {
    pub fn span(&self) -> f32 {
        let fold = |f: fn(f32, f32) -> f32| self.logits.iter().copied().reduce(f).unwrap();
        fold(f32::max) - fold(f32::min)
    }

    /// `max |logit - golden|`.
    pub fn max_difference(&self, logits: &[f32]) -> f32 {
        assert_eq!(logits.len(), self.logits.len(), "number of logits");
        let pairs = logits.iter().zip(&self.logits);
        pairs
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, |max, d| if d > max || d.is_nan() { d } else { max })
    }
}

/// Reads `golden.safetensors` of a fixture.
pub fn read_golden(dir: &Path) -> Golden {
    let path = dir.join("golden.safetensors");
    let file = fs::read(&path).unwrap();
    let table = TensorTable::parse(&path, &file).unwrap();
    let bytes = |name: &str| &file[table.tensors[name].bytes.clone()];
    let ids = |name: &str| {
        let ids = bytes(name)
            .chunks_exact(8)
            .map(|b| i64::from_le_bytes(b.try_into().unwrap()));
        ids.map(|id| u32::try_from(id).unwrap()).collect()
    };
    let floats = bytes("logits").chunks_exact(4);
    Golden {
        ids: ids("ids"),
        logits: floats
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect(),
        greedy_prompt: ids("greedy_prompt"),
        greedy: ids("greedy"),
    }
}

pub fn read_config(path: &Path) -> ModelConfig {
    ModelConfig::from_json(&fs::read_to_string(path).unwrap()).unwrap()
}

pub fn load(dir: &Path, config: ModelConfig) -> Arc<Model<CpuDevice>> {
    load_on(Arc::new(CpuDevice::new(2).unwrap()), dir, config)
}

pub fn load_on<D: Device>(device: Arc<D>, dir: &Path, config: ModelConfig) -> Arc<Model<D>> {
    let weights = Weights::open(dir).unwrap();
    // Several at once, so that what is expected of a model is expected of any order of its blocks.
    let options = LoadOptions {
        blocks_at_once: 2,
        ..LoadOptions::default()
    };
    Arc::new(Model::build(device, config, &weights, &options).unwrap())
}

pub fn session<D: Device>(model: &Arc<Model<D>>, num_sequences: usize) -> Session<D> {
    let context_tokens = model.config().max_positions.min(160);
    let limits = SessionLimits {
        logit_rows: 160,
        ..SessionLimits::new(num_sequences, context_tokens, 128)
    };
    Session::new(Arc::clone(model), limits).unwrap()
}

/// Logits [rows, vocab] of the session's last step.
pub fn logits<D: Device>(session: &mut Session<D>, rows: &[u32]) -> Vec<f32> {
    let model = Arc::clone(session.model());
    let mut out = vec![0.0; rows.len() * model.config().vocab_size];
    let matrix = session.logits(rows).unwrap();
    model.device().download(matrix, 0..rows.len(), &mut out).unwrap();
    out
}

/// Logits of all of `ids`, run as one step.
pub fn prefill<D: Device>(model: &Arc<Model<D>>, ids: &[u32]) -> Vec<f32> {
    in_steps(model, ids, ids.len())
}

/// Logits of all of `ids`, run in steps of `step_tokens`.
pub fn in_steps<D: Device>(model: &Arc<Model<D>>, ids: &[u32], step_tokens: usize) -> Vec<f32> {
    let mut session = session(model, 1);
    let steps = ids.chunks(step_tokens).map(|chunk| {
        session.run(&[(0, chunk)]).unwrap();
        logits(&mut session, &(0..chunk.len() as u32).collect::<Vec<_>>())
    });
    steps.collect::<Vec<_>>().concat()
}

/// The argmax continuation of `prompt`.
pub fn greedy<D: Device>(model: &Arc<Model<D>>, prompt: &[u32], num_tokens: usize) -> Vec<u32> {
    let mut session = session(model, 1);
    let mut row = session.prefill(0, prompt).unwrap();
    let mut tokens = Vec::new();
    loop {
        let logits = logits(&mut session, &[row]);
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)));
        tokens.push(best.unwrap() as u32);
        if tokens.len() == num_tokens {
            return tokens;
        }
        row = session.prefill(0, &tokens[tokens.len() - 1..]).unwrap();
    }
}

/// The folder of a family's small random model.
pub fn family(case: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/families", case]
        .iter()
        .collect()
}

/// The tensors of a model folder, to be changed and written again.
pub fn tensors(dir: &Path) -> Vec<(TensorSpec, Vec<u8>)> {
    let weights = Weights::open(dir).unwrap();
    let tensor = |name: String| {
        let (dtype, shape, bytes) = weights.raw(&name).unwrap();
        let (shape, bytes) = (shape.to_vec(), bytes.to_vec());
        (TensorSpec { name, dtype, shape }, bytes)
    };
    weights.names().into_iter().map(tensor).collect()
}

/// A folder of some files and tensors.
pub fn write(target: &Path, files: &[(&str, &[u8])], tensors: &[(TensorSpec, Vec<u8>)]) {
    let mut folder = FolderWriter::create(target, false).unwrap();
    for (name, bytes) in files {
        folder.write_file(name, bytes).unwrap();
    }
    folder
        .start_tensors(tensors.iter().map(|(spec, _)| spec.clone()).collect())
        .unwrap();
    for (spec, bytes) in tensors {
        folder.write_tensor(&spec.name, bytes).unwrap();
    }
    folder.commit().unwrap();
}

/// A copy of a model's tensors with some changed (`Some(bytes)`) or left out (`None`).
pub fn rewrite(dir: &Path, target: &Path, change: impl Fn(&str, &[u8]) -> Option<Vec<u8>>) -> PathBuf {
    let tensors = tensors(dir).into_iter();
    let changed = tensors.filter_map(|(spec, bytes)| {
        let bytes = change(&spec.name, &bytes)?;
        Some((spec, bytes))
    });
    write(target, &[], &changed.collect::<Vec<_>>());
    target.to_path_buf()
}
