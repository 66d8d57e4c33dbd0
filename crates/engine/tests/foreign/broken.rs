//! Broken folders of every method: shapes, types, values and fields that do not fit are errors that name linear and tensor.

use std::fs;

use dualgrain_engine::{ModelFolder, Weights};
use dualgrain_format::checkpoint::{Dtype, TensorSpec, TensorTable};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{fixture, golden, read_json};

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
fn older_folders_whose_file_of_methods_is_lost_or_broken_are_told_so() {
    let older = Broken::of("gptq-older");
    older.refused(&[".weight` is missing", "GPTQ or AWQ", "quantize_config.json"]);
    let dir = older.dir.path().join("model");
    fs::write(dir.join("quantize_config.json"), "{\"bits\": 4,").unwrap();
    let error = Weights::open(&dir).unwrap_err().to_string();
    assert!(
        error.contains("quantize_config.json") && error.contains("no JSON"),
        "{error}"
    );
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

#[test]
fn broken_tensors_of_mxfp4_are_refused_in_words() {
    let mxfp4 = || Broken::of("mxfp4");
    let (blocks, scales) = ("gate_up_proj_blocks", "gate_up_proj_scales");
    mxfp4()
        .without(blocks)
        .refused(&["experts.0.gate_up_proj.weight` is missing"]);
    mxfp4()
        .without(scales)
        .refused(&["experts.0.gate_up_proj", "`scales` is missing"]);
    for shape in [&[4, 128, 16][..], &[4, 128, 1, 8], &[4, 0, 1, 16]] {
        mxfp4().shaped(blocks, shape).refused(&[
            "experts.0.gate_up_proj",
            "mxfp4",
            "`blocks`",
            "16], not empty",
        ]);
    }
    // Of other sizes than the model's, and of other numbers of experts.
    mxfp4()
        .shaped(blocks, &[4, 127, 1, 16])
        .refused(&["`scales`", "[127, 1]"]);
    mxfp4()
        .shaped(scales, &[4, 128])
        .refused(&["`scales`", "[128, 1]"]);
    mxfp4()
        .shaped(scales, &[3, 128, 1])
        .refused(&["experts.3.gate_up_proj", "`scales` is missing"]);
    for (name, shape) in [
        (blocks, &[0, 128, 1, 16][..]),
        (blocks, &[1 << 40, 0, 1, 16]),
        (blocks, &[4]),
    ] {
        mxfp4()
            .shaped(name, shape)
            .refused(&["experts.0.gate_up_proj.weight` is missing"]);
    }
    mxfp4()
        .typed(scales, Dtype::F16)
        .refused(&["`scales` is missing"]);
    mxfp4()
        .with(scales, 5, &[255])
        .refused(&["`scales` of output 5, group 0 is inf"]);
    let mut both = mxfp4();
    let spec = TensorSpec {
        name: "model.layers.0.mlp.experts.1.gate_up_proj.blocks".to_owned(),
        dtype: Dtype::U8,
        shape: vec![128, 1, 16],
    };
    both.tensors.push((spec, vec![0; 2048]));
    both.refused(&["experts.1.gate_up_proj.blocks", "both by itself"]);
}
