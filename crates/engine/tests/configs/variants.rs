//! Models of the configurations in tests/fixtures/configs, whose weights are made here as oracle/make_config_fixtures.py makes them.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualgrain_cpu::CpuDevice;
use dualgrain_device::Device;
use dualgrain_engine::{ModelConfig, SessionLimits};
use dualgrain_format::checkpoint::TensorSpec;
use serde_json::Value;

use crate::golden;

/// Tokens of the one sequence; it also is the context, so that a rotary embedding that looks at the length sees this one.
pub const TOKENS: usize = 72;
/// Tokens of a continuation, of the prompt before it, and those before a token that it is none of where a row says so.
pub const STEPS: usize = 64;
pub const PROMPT: usize = 40;
const APART: usize = 24;
/// Positions whose logits are compared.
const ROWS: [u32; 2] = [39, 71];
const VOCAB: f32 = 64.0;

/// Rows whose families have no folder of their own among the fixtures; other families are compared in tests/devices.rs
/// and tests/cuda.rs by those.
pub const ON_DEVICES: [&str; 22] = [
    "phi-4-mini",
    "phi-3-partial-rotary",
    "phi-3-mini-4k-window",
    "granite-with-biases",
    "smollm3-windows",
    "starcoder2-3b",
    "starcoder2-without-bias",
    "glm-4-9b",
    "glm-4-9b-0414",
    "gemma-2b",
    "gemma-2-27b-it",
    "gemma-3-12b-text",
    "olmo-2-0325-32b",
    "olmo-3-7b",
    "command-r7b-12-2024",
    "pythia-160m",
    "mixtral-4-experts-window",
    "qwen1.5-moe-dense-middle",
    "qwen3-moe-dense-ends",
    "olmoe-normalized",
    "glm-4.5",
    "gpt-oss-20b",
];

/// A row of the fixtures.
pub struct Variant {
    pub name: String,
    pub config: Value,
    pub outcome: Outcome,
}

pub enum Outcome {
    /// Shapes by name, `*` standing for a layer and `#` for an expert, logits at [`ROWS`], and continuations of prompts.
    Runs {
        shapes: Vec<(String, Vec<usize>)>,
        logits: Vec<f32>,
        continuations: Vec<Continuation>,
    },
    /// Words that the refusal has.
    Refused(Vec<String>),
}

/// What decoding gives behind a prompt when each step takes the best token that the last `apart` are not.
pub struct Continuation {
    pub prompt: u64,
    pub apart: usize,
    pub tokens: Vec<u32>,
}

impl Variant {
    /// All tensors with their shapes.
    pub fn tensors(&self) -> impl Iterator<Item = (String, Vec<usize>)> {
        let Outcome::Runs { shapes, .. } = &self.outcome else {
            panic!("{} does not run", self.name);
        };
        let layers = self.number(&["num_hidden_layers", "n_layer"]).unwrap();
        let experts = self.number(&["num_experts", "num_local_experts", "n_routed_experts"]);
        shapes.iter().flat_map(move |(name, shape)| {
            let of_layers = copies(name, '*', layers).into_iter();
            let of_experts = of_layers.flat_map(move |name| copies(&name, '#', experts.unwrap_or(0)));
            of_experts.map(move |name| (name, shape.clone()))
        })
    }

    /// The first of these fields that holds a number.
    fn number(&self, names: &[&str]) -> Option<u64> {
        names.iter().find_map(|&name| self.config[name].as_u64())
    }
}

/// The name with each number below `count` in the place of `sign`, or the name alone where it has no such sign.
fn copies(name: &str, sign: char, count: u64) -> Vec<String> {
    match name.contains(sign) {
        true => (0..count)
            .map(|idx| name.replace(sign, &idx.to_string()))
            .collect(),
        false => vec![name.to_owned()],
    }
}

/// Every row of every family.
pub fn read_variants() -> Vec<Variant> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/fixtures/configs");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "jsonl"));
    files.sort();
    let rows = files.iter().map(|file| fs::read_to_string(file).unwrap());
    rows.flat_map(|text| text.lines().map(read_variant).collect::<Vec<_>>())
        .collect()
}

/// The greedy one, and one that runs in no circle where the greedy one does.
fn read_continuations(row: &Value) -> Vec<Continuation> {
    let found = [("greedy", 0), ("apart", APART)].into_iter();
    let found = found.filter(|(name, _)| row.get(*name).is_some());
    let read = |(name, apart): (&str, usize)| Continuation {
        prompt: row[name]["prompt"].as_u64().unwrap(),
        apart,
        tokens: numbers(&row[name]["tokens"]).map(|id| id as u32).collect(),
    };
    found.map(read).collect()
}

fn numbers(list: &Value) -> impl Iterator<Item = u64> {
    list.as_array().unwrap().iter().map(|n| n.as_u64().unwrap())
}

fn read_variant(line: &str) -> Variant {
    let row: Value = serde_json::from_str(line).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let outcome = match row["refused"].as_array() {
        Some(words) => Outcome::Refused(words.iter().map(text).collect()),
        None => {
            let sizes = |shape: &Value| numbers(shape).map(|n| n as usize).collect();
            let shapes = row["tensors"].as_object().unwrap().iter();
            let logits = row["logits"].as_array().unwrap().iter();
            Outcome::Runs {
                shapes: shapes.map(|(name, shape)| (name.clone(), sizes(shape))).collect(),
                logits: logits.map(|logit| logit.as_f64().unwrap() as f32).collect(),
                continuations: read_continuations(&row),
            }
        }
    };
    Variant {
        name: text(&row["name"]),
        config: row["config"].clone(),
        outcome,
    }
}

/// Writes a model's folder, without the tensors that are not wanted.
pub fn write_model(variant: &Variant, dir: &Path, is_wanted: impl Fn(&str) -> bool) {
    let tensors = variant.tensors().filter(|(name, _)| is_wanted(name));
    write(
        variant,
        dir,
        tensors.map(|(name, shape)| (weight(&name, &shape), name, shape)),
    );
}

/// Writes a model's folder, some tensors of which hold zeros.
pub fn write_model_with(variant: &Variant, dir: &Path, is_zero: impl Fn(&str) -> bool) {
    let tensors = variant.tensors().map(|(name, shape)| match is_zero(&name) {
        true => (vec![0.0; shape.iter().product()], name, shape),
        false => (weight(&name, &shape), name, shape),
    });
    write(variant, dir, tensors);
}

fn write(variant: &Variant, dir: &Path, tensors: impl Iterator<Item = (Vec<f32>, String, Vec<usize>)>) {
    let tensors = tensors.map(|(values, name, shape)| {
        let dtype = dualgrain_format::checkpoint::Dtype::F32;
        let bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
        (TensorSpec { name, dtype, shape }, bytes)
    });
    let config = variant.config.to_string();
    golden::write(
        dir,
        &[("config.json", config.as_bytes())],
        &tensors.collect::<Vec<_>>(),
    );
}

/// Logits at [`ROWS`] of the model in `dir`, read as `config` says.
pub fn run(dir: &Path, config: ModelConfig) -> Vec<f32> {
    run_on(Arc::new(CpuDevice::new(2).unwrap()), dir, config)
}

/// As [`run`], on a device of the caller.
pub fn run_on<D: Device>(device: Arc<D>, dir: &Path, config: ModelConfig) -> Vec<f32> {
    let model = golden::load_on(device, dir, config);
    let limits = SessionLimits {
        logit_rows: ROWS.len(),
        ..SessionLimits::new(1, TOKENS, TOKENS)
    };
    let mut session = dualgrain_engine::Session::new(model, limits).unwrap();
    session.run(&[(0, &ids("ids", TOKENS))]).unwrap();
    golden::logits(&mut session, &ROWS)
}

/// Continues a prompt by the model in `dir`, read as `config` says, as the fixture was; the context is as long as both.
pub fn proceed<D: Device>(device: Arc<D>, dir: &Path, config: ModelConfig, how: &Continuation) -> Vec<u32> {
    let model = golden::load_on(device, dir, config);
    let limits = SessionLimits::new(1, PROMPT + STEPS, PROMPT);
    let mut session = dualgrain_engine::Session::new(model, limits).unwrap();
    let mut tokens = ids(&format!("prompt {}", how.prompt), PROMPT);
    let mut row = session.prefill(0, &tokens).unwrap();
    loop {
        let logits = golden::logits(&mut session, &[row]);
        let last = &tokens[tokens.len() - how.apart..];
        let open = (0..logits.len() as u32).filter(|id| !last.contains(id));
        let logit = |id: u32| logits[id as usize];
        let best = open.max_by(|&a, &b| logit(a).total_cmp(&logit(b)).then(b.cmp(&a)));
        tokens.push(best.unwrap());
        if tokens.len() == PROMPT + STEPS {
            return tokens.split_off(PROMPT);
        }
        row = session.prefill(0, &tokens[tokens.len() - 1..]).unwrap();
    }
}

/// Token ids that are hashed as a tensor's values are.
fn ids(name: &str, count: usize) -> Vec<u32> {
    let id = |value| ((value + 1.0) * (VOCAB / 2.0)) as u32;
    values(name, count).map(id).collect()
}

/// `max |got - expected|`, and how far apart the expected ones lie.
pub fn difference(got: &[f32], expected: &[f32]) -> (f32, f32) {
    assert_eq!(got.len(), expected.len(), "number of logits");
    let pairs = got.iter().zip(expected).map(|(a, b)| (a - b).abs());
    let difference = pairs.fold(0.0, |max: f32, d| if d > max || d.is_nan() { d } else { max });
    let fold = |f: fn(f32, f32) -> f32| expected.iter().copied().reduce(f).unwrap();
    (difference, fold(f32::max) - fold(f32::min))
}

/// `count` numbers in [-1, 1): FNV-1a of the name plus the index, mixed by splitmix64; its upper 24 bits less 2^23, over 2^23.
fn values(name: &str, count: usize) -> impl Iterator<Item = f32> {
    let seed = name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |seed, byte| {
        (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    (1..=count as u64).map(move |index| {
        let z = seed.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let z = z ^ (z >> 31);
        ((z >> 40) as i64 - (1 << 23)) as f32 / (1 << 23) as f32
    })
}

/// What a weight is around, and how far from it: by role, so that every part shows in the logits.
fn center_and_spread(name: &str, shape: &[usize]) -> (f32, f32) {
    let is_bias = name.ends_with("bias");
    if name.ends_with("e_score_correction_bias") {
        return (0.0, 0.3);
    }
    if name.ends_with("sinks") {
        return (0.0, 1.5);
    }
    if name.contains("norm") || name.contains("ln_f") {
        let of_heads = name.contains("q_norm") || name.contains("k_norm");
        return if is_bias {
            (0.0, 0.4)
        } else {
            (if of_heads { 1.7 } else { 1.0 }, 0.5)
        };
    }
    if is_bias {
        return (0.0, 0.7);
    }
    if name.contains("embed") || name.contains("lm_head") {
        return (0.0, 0.9);
    }
    let is_router = name.ends_with(".gate.weight") || name.ends_with(".router.weight");
    // The second size is that of the input also where experts are one tensor, [experts, in, out].
    let spread = if is_router { 4.0 } else { 2.6 };
    (0.0, (spread / (shape[1] as f64).sqrt()) as f32)
}

fn weight(name: &str, shape: &[usize]) -> Vec<f32> {
    let (center, spread) = center_and_spread(name, shape);
    values(name, shape.iter().product())
        .map(|value| value * spread + center)
        .collect()
}
