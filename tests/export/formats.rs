//! What the formats hold, read by our own engine and byte by byte.

use std::fs;
use std::path::Path;

use dualgrain::engine::Weights;
use dualgrain_format::LinearWeights;
use dualgrain_format::checkpoint::{Dtype, TensorTable};
use serde_json::{Value, json};

use crate::models::{
    divergence, in_floats, linears, logits, mixed, original, quantized, scratch, tokens_of, transformed,
};
use crate::run;

fn config(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap()
}

#[test]
fn hf_weights_are_the_nearest_bf16_of_the_integers_to_the_bit() {
    for (name, folder) in [("usual", quantized()), ("mixed", mixed())] {
        let out = scratch(&format!("hf-bits-{name}")).join("out");
        run(folder, "hf", &out);
        let weights = Weights::open(&out).unwrap();
        for (name, linear) in linears(folder).into_iter().filter(|(name, _)| name != "lm_head") {
            assert_nearest_bf16(&weights, &name, linear);
        }
        assert!(
            !config(&out)
                .as_object()
                .unwrap()
                .contains_key("quantization_config")
        );
        assert_eq!(config(&out)["dtype"], "bfloat16");
        // The output layer is the embedding, as in the original.
        assert_eq!(config(&out)["tie_word_embeddings"], true);
        assert!(!weights.contains("lm_head.weight"));
    }
}

/// The linear `name` of a folder holds the nearest bf16 of these weights.
pub fn assert_nearest_bf16(weights: &Weights, name: &str, linear: LinearWeights) {
    let expected = linear.into_float().unwrap().weight().to_f32();
    let (dtype, _, bytes) = weights.raw(&format!("{name}.weight")).unwrap();
    assert_eq!(dtype, Dtype::BF16);
    let expected = expected
        .iter()
        .flat_map(|&value| nearest_bf16(value).to_le_bytes());
    assert!(expected.eq(bytes.iter().copied()), "{name}");
}

/// Ties to even, by the definition.
fn nearest_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits + 0x7fff + (bits >> 16 & 1);
    (rounded >> 16) as u16
}

#[test]
fn an_hf_folder_computes_what_the_quantized_one_computes_in_floats() {
    for (name, folder) in [
        ("usual", quantized()),
        ("mixed", mixed()),
        ("transformed", transformed()),
    ] {
        let out = scratch(&format!("hf-logits-{name}")).join("out");
        run(folder, "hf", &out);
        let ids = tokens_of(dualgrain::SAMPLE_EVALUATION, folder, 128);
        let ours = logits(&in_floats(folder), &ids);
        let kl = divergence(&ours, &logits(&in_floats(&out), &ids), 8192);
        println!("{name}: KL {kl:e}");
        // The output layer is the embedding here, and INT8 in the quantized folder.
        assert!(kl < 1e-3, "{name}: {kl}");
    }
}

#[test]
fn compressed_tensors_hold_the_codes_and_zero_points_of_the_folder() {
    let out = scratch("compressed").join("out");
    let report = run(quantized(), "compressed-tensors", &out);
    let max = report["folding"]["max_relative_error"].as_f64().unwrap();
    assert!(max > 0.0 && max <= 1.0 / 2048.0, "{max}");
    let name = "model.layers.3.mlp.down_proj";
    let part = |folder: &Path, part: &str| stored(folder, &format!("{name}.{part}"));
    assert_eq!(part(&out, "weight_packed").1, part(quantized(), "q").1);
    assert_eq!(
        part(&out, "weight_shape").1,
        [[0, 1, 0, 0, 0, 0, 0, 0], [0, 3, 0, 0, 0, 0, 0, 0]].concat()
    );
    assert_eq!(part(&out, "weight_zero_point").0, [32, 6]);
    assert_eq!(part(&out, "weight_scale").0, [256, 6]);
    let described = &config(&out)["quantization_config"];
    assert_eq!(described["format"], "pack-quantized");
    assert_eq!(described["ignore"], json!(["lm_head"]));
    assert_eq!(config(&out)["tie_word_embeddings"], true);
    let group = &described["config_groups"]["group_0"];
    assert_eq!(group["targets"], json!(["Linear"]));
    assert_eq!(group["weights"]["group_size"], 128);
    assert_eq!(group["input_activations"]["strategy"], "token");
    let card = fs::read_to_string(out.join("README.md")).unwrap();
    assert!(card.contains("--linear-backend humming"), "{card}");
}

/// Shape and bytes of a tensor, as the file has it.
fn stored(folder: &Path, name: &str) -> (Vec<usize>, Vec<u8>) {
    let path = folder.join("model.safetensors");
    let file = fs::read(&path).unwrap();
    let table = TensorTable::parse(&path, &file).unwrap();
    let entry = &table.tensors[name];
    (entry.shape.clone(), file[entry.bytes.clone()].to_vec())
}

#[test]
fn linears_of_several_schemes_are_named_in_groups_of_their_own() {
    for (format, of_w8) in [
        ("compressed-tensors", "int-quantized"),
        ("compressed-tensors-w4a16", ""),
    ] {
        let out = scratch(&format!("groups-{format}")).join("out");
        run(mixed(), format, &out);
        let described = &config(&out)["quantization_config"];
        let groups: Vec<_> = described["config_groups"].as_object().unwrap().values().collect();
        let sizes: Vec<_> = groups
            .iter()
            .map(|group| group["targets"].as_array().unwrap().len())
            .collect();
        // 4 bits in groups of 128: q, k, v of six blocks, five outs, five gates and ups.
        assert_eq!(sizes, [18 + 5 + 10, 2, 6]);
        let eight = groups
            .iter()
            .find(|group| group["weights"]["num_bits"] == 8)
            .unwrap();
        assert_eq!(eight["format"].as_str().unwrap_or_default(), of_w8);
        assert_eq!(
            described["ignore"],
            json!(["model.layers.2.self_attn.o_proj", "lm_head"])
        );
    }
}

#[test]
fn an_original_becomes_a_gguf_of_its_own_floats() {
    let out = scratch("gguf-float").join("out");
    let report = run(&original(), "gguf", &out);
    assert_eq!(report["folding"], Value::Null);
    // Embedding, last norm, and nine tensors of each of six blocks.
    assert_eq!(report["num_tensors"], 2 + 6 * 9);
    let file = fs::read(out.join("model.gguf")).unwrap();
    assert_eq!(file[..8], *b"GGUF\x03\0\0\0");
}
