//! Folders that other programs quantized (tests/fixtures/foreign, oracle/make_foreign_fixtures.py): their linears are the floats that
//! their codes mean, and broken ones are refused in words.

mod golden;

use std::fs;
use std::path::{Path, PathBuf};

use dualgrain_engine::{ModelConfig, ModelFolder, Storage, Weights};
use dualgrain_format::LinearWeights;
use dualgrain_format::checkpoint::{Dtype, TensorSpec, TensorTable, f32_bytes};
use golden::{load, prefill, read_golden};
use serde_json::{Value, json};
use tempfile::TempDir;

const CASES: [&str; 6] = [
    "gptq-act-order",
    "gptq-older",
    "gptq-v2",
    "awq",
    "compressed-tensors",
    "fp8",
];

/// Largest difference allowed, as a part of the logits' span, as for families (families.rs).
const TOLERANCE: f32 = 1e-5;

fn fixture(case: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/foreign", case]
        .iter()
        .collect()
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn fnv1a(bytes: &[u8]) -> String {
    let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    format!("{:016x}", bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

#[test]
fn every_float_is_what_its_code_scale_and_zero_point_mean() {
    for case in CASES {
        let weights = Weights::open(&fixture(case)).unwrap();
        let expected = read_json(&fixture(case).join("expected.json"));
        for (linear, expected) in expected.as_object().unwrap() {
            let shape: Vec<usize> = serde_json::from_value(expected["shape"].clone()).unwrap();
            let values = weights.f32(&format!("{linear}.weight"), &shape).unwrap();
            let first = serde_json::from_value::<Vec<f32>>(expected["first"].clone()).unwrap();
            assert_eq!(values[..4], first, "{case}: {linear}");
            assert_eq!(expected["fnv1a"], fnv1a(&f32_bytes(&values)), "{case}: {linear}");
        }
    }
}

#[test]
fn rows_alone_and_in_other_places_are_the_same_floats() {
    for case in CASES {
        let weights = Weights::open(&fixture(case)).unwrap();
        let config = ModelConfig::load(&fixture(case)).unwrap();
        let name = "model.layers.0.mlp.gate_proj";
        let (n, k) = (config.ffn_size, config.hidden_size);
        let whole = weights.f32(&format!("{name}.weight"), &[n, k]).unwrap();
        let slice = weights.linear_rows(name, ((n, k), 3..29), false, None).unwrap();
        let LinearWeights::Float(slice) = slice else {
            panic!("{case}: no floats");
        };
        assert_eq!(slice.into_parts().0.to_f32(), whole[3 * k..29 * k], "{case}");
        let (_, shape, bytes) = weights.raw(&format!("{name}.weight")).unwrap();
        assert_eq!(
            (shape, &bytes[..]),
            ([n, k].as_slice(), &f32_bytes(&whole)[..]),
            "{case}"
        );
    }
}

#[test]
fn logits_and_continuations_are_those_of_transformers_for_the_floats() {
    for case in CASES {
        let golden = read_golden(&fixture(case));
        let model = load(&fixture(case), ModelConfig::load(&fixture(case)).unwrap());
        let difference = golden.max_difference(&prefill(&model, &golden.ids));
        println!("{case}: max difference {difference:e}, span {}", golden.span());
        assert!(difference <= TOLERANCE * golden.span(), "{case}: {difference}");
        let tokens = golden::greedy(&model, &golden.greedy_prompt, golden.greedy.len());
        assert_eq!(tokens, golden.greedy, "{case}");
    }
}

#[test]
fn one_notice_says_that_the_model_was_quantized_before_and_what_is_left_out() {
    for (case, words) in [
        ("gptq-act-order", "gptq, 4 bits in groups of 16): 7 linears"),
        ("gptq-older", "gptq, 4 bits in groups of 32): 7 linears"),
        ("gptq-v2", "gptq, 4 bits in one group a row): 7 linears"),
        ("awq", "awq, 4 bits in groups of 16): 7 linears"),
        ("compressed-tensors", "of keys and values, and of activations"),
        ("fp8", "fp8, in blocks of 24 x 20"),
    ] {
        let folder = ModelFolder::open(&fixture(case)).unwrap();
        let said = folder
            .notices
            .iter()
            .filter(|notice| notice.contains("quantized before"));
        let said: Vec<_> = said.collect();
        assert!(said.len() == 1 && said[0].contains(words), "{case}: {said:?}");
        let storage = Storage::measure(&folder.weights, &folder.config).unwrap();
        let bits = storage.bits_per_weight();
        assert!((2.0..10.0).contains(&bits), "{case}: {bits} bits");
        assert!(
            storage.schemes.keys().any(|word| word.contains(&case[..3])),
            "{case}: {storage:?}"
        );
        // With the biases of zeros that are beside linears of the older folder.
        let biases = if case == "gptq-older" { 256 } else { 0 };
        let parameters = storage.parameters(&folder.weights).unwrap();
        assert_eq!(parameters, 13_408 + biases, "{case}");
    }
    let older = ModelFolder::open(&fixture("gptq-older")).unwrap();
    assert!(
        older.notices.iter().any(|notice| notice.contains("bias")),
        "biases of zeros are told"
    );
}

/// A folder to break: the config of a case, and its tensors as they lie in its file.
struct Broken {
    dir: TempDir,
    config: Value,
    tensors: Vec<(TensorSpec, Vec<u8>)>,
}

impl Broken {
    fn of(case: &str) -> Self {
        let path = fixture(case).join("model.safetensors");
        let file = fs::read(&path).unwrap();
        let table = TensorTable::parse(&path, &file).unwrap();
        let tensors = table.tensors.into_iter().map(|(name, entry)| {
            let (dtype, shape) = (entry.dtype, entry.shape);
            (TensorSpec { name, dtype, shape }, file[entry.bytes].to_vec())
        });
        Self {
            dir: tempfile::tempdir().unwrap(),
            config: read_json(&fixture(case).join("config.json")),
            tensors: tensors.collect(),
        }
    }

    fn tensor(&mut self, end: &str) -> &mut (TensorSpec, Vec<u8>) {
        let found = self.tensors.iter_mut().find(|(spec, _)| spec.name.ends_with(end));
        found.unwrap_or_else(|| panic!("no tensor ends in {end}"))
    }

    fn without(mut self, end: &str) -> Self {
        let name = self.tensor(end).0.name.clone();
        self.tensors.retain(|(spec, _)| spec.name != name);
        self
    }

    /// Bytes at an offset become others.
    fn with(mut self, end: &str, offset: usize, bytes: &[u8]) -> Self {
        self.tensor(end).1[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// A tensor gets another shape, with zeros as far as it has no bytes.
    fn shaped(mut self, end: &str, shape: &[usize]) -> Self {
        let (spec, bytes) = self.tensor(end);
        spec.shape = shape.to_vec();
        bytes.resize(spec.dtype.bitsize() / 8 * shape.iter().product::<usize>(), 0);
        self
    }

    fn typed(mut self, end: &str, dtype: Dtype) -> Self {
        let (spec, bytes) = self.tensor(end);
        let len = dtype.bitsize() / 8 * spec.shape.iter().product::<usize>();
        spec.dtype = dtype;
        bytes.resize(len, 0);
        self
    }

    fn configured(mut self, name: &str, value: Value) -> Self {
        self.config["quantization_config"][name] = value;
        self
    }

    /// Opens the folder and reads all of its tensors.
    #[track_caller]
    fn refused(&self, words: &[&str]) {
        let dir = self.dir.path().join("model");
        let config = self.config.to_string();
        golden::write(&dir, &[("config.json", config.as_bytes())], &self.tensors);
        let read = || -> Result<(), String> {
            let folder = ModelFolder::open(&dir).map_err(|error| error.to_string())?;
            for name in folder.weights.names() {
                folder.weights.raw(&name).map_err(|error| error.to_string())?;
            }
            Ok(())
        };
        let text = read().expect_err("a broken folder was read");
        println!("{text}");
        for word in words {
            assert!(text.contains(word), "`{word}` is not in: {text}");
        }
    }
}

const F16_INFINITY: [u8; 2] = [0, 0x7c];

#[test]
fn broken_tensors_of_gptq_are_refused_in_words() {
    let gptq = || Broken::of("gptq-act-order");
    let g_idx = "q_proj.g_idx";
    gptq()
        .with(g_idx, 20, &[2, 0, 0, 0])
        .refused(&["q_proj", "gptq", "`g_idx`[5] is 2", "0 to 1"]);
    gptq().with(g_idx, 0, &[255; 4]).refused(&["`g_idx`[0] is -1"]);
    gptq().shaped(g_idx, &[31]).refused(&["`g_idx`", "[31]", "[32]"]);
    gptq().without(g_idx).refused(&["`g_idx` is missing", "desc_act"]);
    gptq()
        .without("q_proj.qzeros")
        .refused(&["q_proj", "`qzeros` is missing"]);
    gptq()
        .without("q_proj.scales")
        .refused(&["q_proj", "`scales` is missing"]);
    gptq()
        .without("q_proj.qweight")
        .refused(&["q_proj.weight` is missing"]);
    gptq()
        .shaped("q_proj.scales", &[2, 31])
        .refused(&["`scales`", "[2, 32]"]);
    gptq()
        .shaped("q_proj.qzeros", &[3, 4])
        .refused(&["`qzeros`", "[2, 4]"]);
    gptq()
        .shaped("gate_proj.qweight", &[4, 64])
        .refused(&["`qweight`", "3 bits"]);
    gptq()
        .shaped("q_proj.qweight", &[0, 32])
        .refused(&["`qweight`", "not empty"]);
    gptq()
        .shaped("q_proj.qweight", &[128])
        .refused(&["`qweight`", "matrix"]);
    gptq()
        .typed("q_proj.qweight", Dtype::I64)
        .refused(&["`qweight`", "I64", "I32"]);
    gptq()
        .typed("q_proj.scales", Dtype::I16)
        .refused(&["`scales`", "I16", "F16"]);
    gptq()
        .with("q_proj.scales", 2, &F16_INFINITY)
        .refused(&["`scales` of output 1, group 0 is inf"]);
    gptq()
        .configured("bits", json!(5))
        .refused(&["config.json", "`bits` is 5"]);
    gptq()
        .configured("bits", json!(8))
        .refused(&["`qzeros`", "[2, 16]"]);
    Broken::of("gptq-v2")
        .configured("group_size", json!(24))
        .without("q_proj.g_idx")
        .refused(&["`scales`", "2 rows"]);
    // A bias that is not zero belongs to a model that has one.
    let mut older = Broken::of("gptq-older");
    older.config["quantization_config"] = read_json(&fixture("gptq-older").join("quantize_config.json"));
    older
        .with("q_proj.bias", 0, &[1, 0x3c])
        .refused(&["q_proj.bias", "do not belong"]);
}

#[test]
fn broken_tensors_of_awq_are_refused_in_words() {
    let awq = || Broken::of("awq");
    awq()
        .configured("group_size", json!(24))
        .refused(&["`qweight`", "group size (24)"]);
    awq()
        .configured("version", json!("gemv"))
        .refused(&["`version` is \"gemv\"", "gemm"]);
    awq()
        .shaped("q_proj.qzeros", &[2, 3])
        .refused(&["`qzeros`", "[2, 4]"]);
    awq()
        .shaped("q_proj.scales", &[2, 30])
        .refused(&["`scales`", "[2, 32]"]);
    awq()
        .shaped("q_proj.qweight", &[64, 4])
        .refused(&["q_proj", "`scales`", "[4, 32]"]);
    awq()
        .without("down_proj.qzeros")
        .refused(&["down_proj", "`qzeros` is missing"]);
    awq()
        .with("q_proj.scales", 0, &F16_INFINITY)
        .refused(&["`scales` of output 0, group 0 is inf"]);
    let mut both = awq();
    let spec = TensorSpec {
        name: "model.layers.0.self_attn.q_proj.weight".to_owned(),
        dtype: Dtype::F16,
        shape: vec![32, 32],
    };
    both.tensors.push((spec, vec![0; 2048]));
    both.refused(&["q_proj.weight` is there both"]);
}

#[test]
fn broken_tensors_of_compressed_tensors_are_refused_in_words() {
    let compressed = || Broken::of("compressed-tensors");
    let shape = |n: i64, k: i64| [n.to_le_bytes(), k.to_le_bytes()].concat();
    compressed()
        .with("q_proj.weight_shape", 0, &shape(32, 64))
        .refused(&["`weight_packed`", "32 rows of 64"]);
    compressed()
        .with("q_proj.weight_shape", 0, &shape(32, -32))
        .refused(&["`weight_shape`", "-32"]);
    compressed()
        .with("q_proj.weight_shape", 0, &shape(i64::MAX, i64::MAX))
        .refused(&["`weight_packed`"]);
    compressed()
        .with("q_proj.weight_shape", 0, &shape(32, 0))
        .refused(&["`weight_packed`"]);
    compressed()
        .without("q_proj.weight_shape")
        .refused(&["`weight_shape` is missing"]);
    compressed()
        .without("v_proj.weight_zero_point")
        .refused(&["`weight_zero_point` is missing", "symmetric"]);
    compressed()
        .shaped("v_proj.weight_zero_point", &[2, 3])
        .refused(&["`weight_zero_point`", "[2, 2]"]);
    compressed()
        .typed("v_proj.weight_zero_point", Dtype::F16)
        .refused(&["`weight_zero_point`", "F16"]);
    compressed()
        .without("gate_proj.weight_g_idx")
        .refused(&["`weight_g_idx` is missing", "actorder"]);
    compressed()
        .with("gate_proj.weight_g_idx", 4, &[9, 0, 0, 0])
        .refused(&["`weight_g_idx`[1] is 9"]);
    compressed()
        .shaped("q_proj.weight_scale", &[32, 3])
        .refused(&["`weight_scale`", "[32, 2]"]);
    compressed()
        .shaped("down_proj.weight_scale", &[2])
        .refused(&["`weight_scale`", "[32, 1]"]);
    compressed()
        .typed("down_proj.weight_scale", Dtype::F8_E5M2)
        .refused(&["`weight_scale`", "F8_E5M2"]);
    compressed()
        .with("down_proj.weight", 3, &[0x7f])
        .refused(&["down_proj.weight`[3] is NaN"]);
    compressed()
        .with("q_proj.weight_scale", 0, &[0x80, 0x7f])
        .refused(&["`weight_scale` of output 0, group 0 is inf"]);
    compressed()
        .configured("ignore", json!(["re:.*q_proj"]))
        .refused(&["q_proj", "ignore names it"]);
    compressed()
        .configured("config_groups", json!({}))
        .refused(&["no group", "config_groups"]);
    compressed()
        .configured("format", json!("nvfp4-pack-quantized"))
        .refused(&["`format`", "nvfp4"]);
}

#[test]
fn broken_tensors_of_fp8_are_refused_in_words() {
    let fp8 = || Broken::of("fp8");
    fp8()
        .configured("weight_block_size", json!([16, 16]))
        .refused(&["`weight_scale_inv`", "[3, 2], expected [4, 2]"]);
    fp8()
        .configured("weight_block_size", Value::Null)
        .refused(&["`weight_scale_inv`"]);
    fp8()
        .without("q_proj.weight_scale_inv")
        .refused(&["q_proj", "`weight_scale_inv` is missing"]);
    fp8()
        .with("q_proj.weight_scale_inv", 0, &f32::INFINITY.to_le_bytes())
        .refused(&["`weight_scale_inv`", "inf"]);
    fp8()
        .with("q_proj.weight", 0, &[0xff])
        .refused(&["q_proj.weight`[0] is NaN"]);
}

#[test]
fn a_tensor_in_a_shard_that_is_not_there_is_told_so() {
    let mut broken = Broken::of("awq");
    let lost = "model.layers.0.mlp.up_proj.qzeros";
    broken.tensors.retain(|(spec, _)| spec.name != lost);
    let dir = broken.dir.path().join("model");
    golden::write(
        &dir,
        &[("config.json", broken.config.to_string().as_bytes())],
        &broken.tensors,
    );
    let names = broken
        .tensors
        .iter()
        .map(|(spec, _)| (spec.name.clone(), json!("part.safetensors")));
    let mut map: serde_json::Map<_, _> = names.collect();
    map.insert(lost.to_owned(), json!("lost.safetensors"));
    fs::rename(dir.join("model.safetensors"), dir.join("part.safetensors")).unwrap();
    fs::write(
        dir.join("model.safetensors.index.json"),
        json!({"weight_map": map}).to_string(),
    )
    .unwrap();
    let error = Weights::open(&dir).unwrap_err().to_string();
    assert!(
        error.contains("up_proj.qzeros") && error.contains("lost.safetensors"),
        "{error}"
    );
}
