//! Mixtures of experts. `hf`: every expert under its own name, and the same logits. GGUF: the same part of all experts is one tensor.

use std::fs;
use std::path::PathBuf;

use dualgrain::engine::{ModelConfig, Weights};
use dualgrain_format::gguf::{GgufFile, GgufKind};
use serde_json::{Value, json};

use crate::drawn;
use crate::formats::assert_nearest_bf16;
use crate::models::{divergence, in_floats, linears, logits, mixture, quantize_model, scratch, tokens_of};
use crate::packages::{oracle, write_dump};
use crate::program::{failure, text};
use crate::run;

#[test]
fn an_hf_folder_of_a_mixture_holds_every_expert_to_the_bit() {
    let out = scratch("mixture-bits").join("out");
    run(mixture(), "hf", &out);
    let weights = Weights::open(&out).unwrap();
    let mut num_of_experts = 0;
    for (name, linear) in linears(mixture()) {
        assert_nearest_bf16(&weights, &name, linear);
        num_of_experts += usize::from(name.contains(".experts."));
    }
    // Gate, up and down of four experts in two blocks.
    assert_eq!(num_of_experts, 3 * 4 * 2);
}

#[test]
fn an_hf_folder_of_a_mixture_is_read_back_to_the_same_logits() {
    let out = scratch("mixture-logits").join("out");
    run(mixture(), "hf", &out);
    let ids = tokens_of(dualgrain::SAMPLE_EVALUATION, mixture(), 256);
    let (quantized, read_back) = (in_floats(mixture()), in_floats(&out));
    let vocab = quantized.config().vocab_size;
    let (ours, theirs) = (logits(&quantized, &ids), logits(&read_back, &ids));
    let kl = divergence(&ours, &theirs, vocab);
    let of_neighbour = divergence(&ours[vocab..], &ours[..ours.len() - vocab], vocab);
    println!("KL {kl:e}, between neighbouring tokens {of_neighbour:e}");
    // Weights are rounded to the eight bits of bf16.
    assert!(kl < 1e-3 && of_neighbour > 100.0 * kl, "{kl} and {of_neighbour}");
}

/// A small random model of a family, quantized; `change` changes its configuration.
fn quantized(family: &str, test: &str, change: impl Fn(&mut Value)) -> PathBuf {
    let mut row = drawn::family(family, 2);
    change(&mut row["config"]);
    // A shared expert as wide as two blocks.
    if row["config"]["shared_expert_intermediate_size"] == 48 {
        row["config"]["shared_expert_intermediate_size"] = 64.into();
        let shapes = row["tensors"].as_object_mut().unwrap();
        let sizes = shapes
            .values_mut()
            .flat_map(|shape| shape.as_array_mut().unwrap());
        sizes
            .filter(|size| **size == 48)
            .for_each(|size| *size = 64.into());
    }
    let name = format!("gguf-{family}-{test}");
    let model = scratch(&format!("{name}-in-floats")).join("model");
    drawn::write(&row, &model);
    quantize_model(&model, &name, &["--group-size", "32"])
}

/// More experts than a digit counts: a folder lists expert 10 before expert 2, a file must not.
#[test]
fn a_gguf_of_a_mixture_in_floats_has_its_experts_by_number() {
    const EXPERTS: usize = 12;
    let mut row = drawn::family("qwen3_moe", 1);
    divided(&mut row["config"]);
    row["config"]["num_local_experts"] = EXPERTS.into();
    let shapes = row["tensors"].as_object_mut().unwrap();
    for (name, shape) in shapes {
        if name.ends_with("mlp.gate.weight") {
            shape[0] = EXPERTS.into();
        }
    }
    let folder = scratch("gguf-experts-in-floats");
    let (model, out) = (folder.join("model"), folder.join("out"));
    drawn::write(&row, &model);
    run(&model, "gguf", &out);
    let bytes = fs::read(out.join("model.gguf")).unwrap();
    let file = GgufFile::parse(&bytes).unwrap();
    let weights = Weights::open(&model).unwrap();
    for (part, of_expert) in [("gate", "gate_proj"), ("up", "up_proj"), ("down", "down_proj")] {
        let stack = &file.tensors[&format!("blk.0.ffn_{part}_exps.weight")];
        let experts = bytes[stack.bytes.clone()].chunks_exact(stack.bytes.len() / EXPERTS);
        assert_eq!((experts.len(), stack.shape[0]), (EXPERTS, EXPERTS));
        for (expert, in_file) in experts.enumerate() {
            let name = format!("model.layers.0.mlp.experts.{expert}.{of_expert}.weight");
            assert!(in_file == &*weights.raw(&name).unwrap().2, "{name}");
        }
    }
}

fn divided(config: &mut Value) {
    config["norm_topk_prob"] = json!(true);
}

#[test]
fn a_gguf_stacks_the_experts_and_names_the_parts_of_a_mixture() {
    for (family, architecture) in [
        ("qwen3_moe", "qwen3moe"),
        ("qwen2_moe", "qwen2moe"),
        ("mixtral", "llama"),
    ] {
        let has_shared = family == "qwen2_moe";
        let model = quantized(family, "parts", |config| match has_shared {
            true => {}
            false => divided(config),
        });
        let out = scratch(&format!("gguf-{family}")).join("out");
        run(&model, "gguf", &out);
        let file = GgufFile::parse(&fs::read(out.join("model.gguf")).unwrap()).unwrap();
        assert_eq!(file.metadata["general.architecture"], architecture);
        assert_eq!(file.metadata[&format!("{architecture}.expert_count")], 4);
        let config = ModelConfig::load(&model).unwrap();
        let (hidden, inner) = (config.hidden_size, config.mixture.unwrap().expert_size);
        let tensor = |name: &str| {
            file.tensors
                .get(name)
                .map(|tensor| (tensor.kind, &tensor.shape[..]))
        };
        for (part, shape) in [
            ("gate", [4, inner, hidden]),
            ("up", [4, inner, hidden]),
            ("down", [4, hidden, inner]),
        ] {
            let stack = tensor(&format!("blk.1.ffn_{part}_exps.weight"));
            assert_eq!(stack, Some((GgufKind::Q4_1, &shape[..])), "{family}");
        }
        let router = tensor("blk.0.ffn_gate_inp.weight");
        assert_eq!(router, Some((GgufKind::F32, &[4, hidden][..])), "{family}");
        let gate = tensor("blk.0.ffn_gate_inp_shexp.weight");
        assert_eq!(
            gate,
            has_shared.then_some((GgufKind::F32, &[hidden][..])),
            "{family}"
        );
        let Some(found) = oracle(&["weights", text(&model), text(&out)]) else {
            continue;
        };
        assert!(
            found["max_relative_error"].as_f64().unwrap() < 9e-3,
            "{family}: {found}"
        );
        assert!(
            found["linears"].as_u64().unwrap() >= 2 * (4 + 3 * 4),
            "{family}: {found}"
        );
    }
}

/// transformers has no reader of Mixtral's file: it takes the architecture `llama` for a dense model.
#[test]
fn transformers_computes_from_a_gguf_of_experts_what_we_compute() {
    for family in ["qwen3_moe", "qwen2_moe"] {
        let model = quantized(family, "logits", |config| match family {
            "qwen2_moe" => {}
            _ => divided(config),
        });
        let scratch = scratch(&format!("gguf-{family}-logits-out"));
        let (out, dump) = (scratch.join("out"), scratch.join("dump"));
        run(&model, "gguf", &out);
        let ids = tokens_of(dualgrain::SAMPLE_EVALUATION, &model, 128);
        write_dump(&dump, &ids, &logits(&in_floats(&model), &ids));
        let file = dump.join("model.safetensors");
        let Some(found) = oracle(&["logits", text(&out), text(&file)]) else {
            return;
        };
        assert!(found["mean_kl"].as_f64().unwrap() <= 0.005, "{family}: {found}");
    }
}

#[test]
fn a_mixture_that_the_architecture_computes_otherwise_is_refused_by_name() {
    let out = scratch("gguf-refused-mixture").join("out");
    let message = failure(&["export", text(mixture()), "--format", "gguf", "--out", text(&out)]);
    assert!(message.contains("norm_topk_prob true"), "{message}");
    assert!(!out.exists());
}
