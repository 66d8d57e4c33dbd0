//! Broken and hostile model folders give one clear error, and never a panic or a model.

mod golden;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use dualgrain_cpu::CpuDevice;
use dualgrain_device::cases::Random;
use dualgrain_engine::{EngineError, LoadOptions, Model, ModelConfig};
use dualgrain_format::checkpoint::{Dtype, TensorSpec};
use dualgrain_testing::{copy_folder, damage, damage_text};
use golden::family;
use tempfile::TempDir;

/// A copy of a family's model to break.
fn copy(case: &str) -> TempDir {
    let tmp = tempfile::tempdir().unwrap();
    copy_folder(&family(case), tmp.path());
    tmp
}

fn load(dir: &Path) -> Result<Model<CpuDevice>, EngineError> {
    Model::load(Arc::new(CpuDevice::new(1).unwrap()), dir, &LoadOptions::default())
}

#[track_caller]
fn assert_refused(dir: &Path, words: &[&str]) {
    let Err(error) = load(dir) else {
        panic!("a broken folder was loaded");
    };
    let text = error.to_string();
    println!("{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

/// The tensors of a family's model, to be changed and written again.
fn tensors(case: &str) -> Vec<(TensorSpec, Vec<u8>)> {
    golden::tensors(&family(case))
}

/// A folder with `tensors` and the config of `case`.
fn folder(case: &str, tensors: Vec<(TensorSpec, Vec<u8>)>) -> TempDir {
    let tmp = tempfile::tempdir().unwrap();
    let config = fs::read(family(case).join("config.json")).unwrap();
    golden::write(&tmp.path().join("model"), &[("config.json", &config)], &tensors);
    tmp
}

fn spec(name: &str, dtype: Dtype, shape: &[usize]) -> TensorSpec {
    let (name, shape) = (name.into(), shape.to_vec());
    TensorSpec { name, dtype, shape }
}

#[test]
fn the_unbroken_copies_load() {
    load(copy("llama3-sharded").path()).unwrap();
    load(&folder("qwen3", tensors("qwen3")).path().join("model")).unwrap();
}

#[test]
fn truncated_files_are_refused_at_every_length() {
    let dir = copy("llama2");
    let path = dir.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    for len in [0, 1, 7, 8, 100, 3_000, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..len]).unwrap();
        assert_refused(dir.path(), &["model.safetensors", "safetensors file"]);
    }
    let longer = [whole.as_slice(), &[0]].concat();
    fs::write(&path, longer).unwrap();
    assert_refused(dir.path(), &["model.safetensors"]);
}

#[test]
fn offsets_past_the_end_are_refused() {
    let dir = copy("llama2");
    let header = r#"{"lm_head.weight":{"dtype":"BF16","shape":[96,32],"data_offsets":[0,6144]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    fs::write(dir.path().join("model.safetensors"), file).unwrap();
    assert_refused(dir.path(), &["model.safetensors"]);
}

#[test]
fn a_wrong_shape_names_tensor_expected_and_got() {
    let mut tensors = tensors("llama2");
    let changed = tensors
        .iter_mut()
        .find(|(spec, _)| spec.name.ends_with("1.mlp.up_proj.weight"))
        .unwrap();
    changed.0.shape = vec![32, 56];
    let dir = folder("llama2", tensors);
    let words = ["model.layers.1.mlp.up_proj.weight", "[32, 56]", "[56, 32]"];
    assert_refused(&dir.path().join("model"), &words);
}

#[test]
fn nan_and_infinity_are_refused_with_tensor_and_index() {
    for (name, half, got) in [
        ("model.layers.0.self_attn.k_proj.weight", 0x7fc0_u16, "NaN"),
        ("model.embed_tokens.weight", 0x7f80, "inf"),
        ("model.norm.weight", 0xff80, "-inf"),
    ] {
        let mut tensors = tensors("llama2");
        let (_, bytes) = tensors.iter_mut().find(|(spec, _)| spec.name == name).unwrap();
        bytes[2 * 17..2 * 18].copy_from_slice(&half.to_le_bytes());
        let dir = folder("llama2", tensors);
        assert_refused(&dir.path().join("model"), &[name, "[17]", got]);
    }
}

#[test]
fn a_missing_tensor_comes_with_the_nearest_name() {
    let mut tensors = tensors("llama2");
    let (spec, _) = tensors
        .iter_mut()
        .find(|(spec, _)| spec.name.ends_with("0.mlp.down_proj.weight"))
        .unwrap();
    spec.name = "model.layers.0.mlp.down_prj.weight".into();
    let dir = folder("llama2", tensors);
    let words = [
        "model.safetensors: tensor `model.layers.0.mlp.down_proj.weight` is missing",
        "down_prj",
    ];
    assert_refused(&dir.path().join("model"), &words);
}

#[test]
fn tensors_that_do_not_belong_are_refused_but_known_ballast_is_not() {
    let mut tensors = tensors("llama2");
    let ballast = spec("model.layers.0.self_attn.rotary_emb.inv_freq", Dtype::F32, &[4]);
    tensors.push((ballast, vec![0; 16]));
    load(&folder("llama2", tensors.clone()).path().join("model")).unwrap();
    tensors.push((
        spec("model.layers.2.mlp.up_proj.weight", Dtype::F32, &[1]),
        vec![0; 4],
    ));
    let dir = folder("llama2", tensors);
    assert_refused(&dir.path().join("model"), &["model.layers.2.mlp.up_proj.weight"]);
}

#[test]
fn a_tied_head_may_be_stored_twice_but_not_differently() {
    let mut tensors = tensors("qwen3");
    let (embedding, bytes) = tensors
        .iter()
        .find(|(spec, _)| spec.name.contains("embed_tokens"))
        .unwrap()
        .clone();
    let head = spec("lm_head.weight", embedding.dtype, &embedding.shape);
    tensors.push((head, bytes));
    load(&folder("qwen3", tensors.clone()).path().join("model")).unwrap();
    tensors.last_mut().unwrap().1[0] ^= 1;
    let dir = folder("qwen3", tensors);
    assert_refused(
        &dir.path().join("model"),
        &["lm_head", "embed_tokens", "tie_word_embeddings"],
    );
}

#[test]
fn integers_where_floats_belong_are_refused() {
    let mut tensors = tensors("llama2");
    let (spec, bytes) = tensors
        .iter_mut()
        .find(|(spec, _)| spec.name == "model.norm.weight")
        .unwrap();
    spec.dtype = Dtype::I64;
    *bytes = vec![0; 8 * 32];
    let dir = folder("llama2", tensors);
    assert_refused(&dir.path().join("model"), &["model.norm.weight", "I64", "BF16"]);
}

#[test]
fn an_index_whose_shards_lack_a_needed_tensor_is_refused() {
    let dir = copy("llama3-sharded");
    let path = dir.path().join("model.safetensors.index.json");
    let good = fs::read_to_string(&path).unwrap();
    let with = |from: &str, to: &str, words: &[&str]| {
        assert!(good.contains(from));
        fs::write(&path, good.replace(from, to)).unwrap();
        assert_refused(dir.path(), words);
    };
    let shard = "model-00002-of-00003.safetensors";
    with(
        shard,
        "model-00009-of-00003.safetensors",
        &["index.json", "model-00009"],
    );
    with(
        shard,
        "../secret.safetensors",
        &["../secret", "not the name of a file"],
    );
    with("weight_map", "weights", &["weight_map"]);
    with("{", "[", &["index.json"]);
    // What it lists and the model does not need may be lacking, and so may a name that a shard has.
    fs::write(&path, good.replace("model.norm.weight", "model.nrm.weight")).unwrap();
    load(dir.path()).unwrap();
    fs::write(&path, &good).unwrap();
    fs::write(dir.path().join(shard), b"short").unwrap();
    assert_refused(dir.path(), &[shard]);
    fs::remove_file(dir.path().join(shard)).unwrap();
    assert_refused(dir.path(), &[shard, "not there"]);
}

#[test]
fn folders_without_model_or_config_say_what_is_missing() {
    let dir = copy("llama2");
    fs::rename(
        dir.path().join("model.safetensors"),
        dir.path().join("pytorch_model.bin"),
    )
    .unwrap();
    assert_refused(dir.path(), &["model.safetensors", "converted"]);
    fs::remove_file(dir.path().join("config.json")).unwrap();
    assert_refused(dir.path(), &["config.json"]);
    assert_refused(&dir.path().join("nowhere"), &["nowhere"]);
}

#[test]
fn unknown_architectures_and_other_quantizers_are_refused() {
    let dir = copy("llama2");
    let path = dir.path().join("config.json");
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, good.replace("Llama", "Mamba").replace("llama", "mamba")).unwrap();
    assert_refused(
        dir.path(),
        &["config.json", "MambaForCausalLM", "LlamaForCausalLM"],
    );
    let aqlm = r#"{"quantization_config": {"quant_method": "aqlm"},"#;
    fs::write(&path, good.replacen('{', aqlm, 1)).unwrap();
    assert_refused(dir.path(), &["config.json", "aqlm", "dualgrain"]);
    let larger = good.replace(r#""num_hidden_layers": 2"#, r#""num_hidden_layers": 3"#);
    assert_ne!(larger, good);
    fs::write(&path, larger).unwrap();
    assert_refused(dir.path(), &["model.layers.2."]);
}

#[test]
fn damaged_configs_give_a_config_or_an_error_but_never_a_panic() {
    let random = &mut Random(1);
    for case in ["llama3", "qwen2-window", "opt", "bloom"] {
        let good = fs::read_to_string(family(case).join("config.json")).unwrap();
        for _ in 0..2_000 {
            let _ = ModelConfig::from_json(&damage_text(random, &good));
        }
    }
}

#[test]
fn damaged_headers_give_a_model_or_an_error_but_never_a_panic() {
    let dir = copy("llama-bias");
    let path = dir.path().join("model.safetensors");
    let good = fs::read(&path).unwrap();
    let header = 8 + usize::try_from(u64::from_le_bytes(good[..8].try_into().unwrap())).unwrap();
    let random = &mut Random(2);
    for _ in 0..300 {
        let damaged = damage(random, &good[..header]);
        fs::write(&path, [&damaged, &good[header..]].concat()).unwrap();
        let _ = load(dir.path());
    }
}
