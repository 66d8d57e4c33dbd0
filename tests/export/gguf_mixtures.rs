//! Mixtures of experts in a GGUF file: the same part of all experts is one tensor there.

use std::fs;
use std::path::PathBuf;

use dualgrain::engine::ModelConfig;
use dualgrain_format::gguf::{GgufFile, GgufKind};

use crate::models::{in_floats, logits, original, quantize_model, scratch, tokens_of};
use crate::packages::{oracle, write_dump};
use crate::program::{failure, text};
use crate::run;
use crate::variants::{Outcome, Variant, read_variants, with_vocabulary, write_model};

/// The vocabulary of the bundled tokenizer.
const VOCAB: usize = 8_192;

/// A random model of a row, quantized; experts have rows of whole blocks.
fn mixture(row: &str) -> PathBuf {
    let variant = read_variants().into_iter().find(|variant| variant.name == row);
    let variant = with_whole_blocks(with_vocabulary(variant.unwrap(), VOCAB));
    let folder = scratch(&format!("mixture-{row}"));
    let model = folder.join("original");
    write_model(&variant, &model, |_| true);
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(original().join(file), model.join(file)).unwrap();
    }
    quantize_model(&model, &folder.join("model"), &["--group-size", "32"])
}

/// Experts of 48 channels get 64, two blocks.
fn with_whole_blocks(mut variant: Variant) -> Variant {
    if variant.config["moe_intermediate_size"] == 48 {
        variant.config["moe_intermediate_size"] = 64.into();
        if let Outcome::Runs { shapes, .. } = &mut variant.outcome {
            let sizes = shapes.iter_mut().flat_map(|(_, shape)| shape);
            sizes.filter(|size| **size == 48).for_each(|size| *size = 64);
        }
    }
    variant
}

#[test]
fn a_gguf_stacks_the_experts_and_names_the_parts_of_a_mixture() {
    for (row, architecture, shared) in [
        ("qwen3-30b-a3b", "qwen3moe", false),
        ("qwen2-57b-a14b", "qwen2moe", true),
        ("mixtral-8x7b", "llama", false),
    ] {
        let model = mixture(row);
        let out = model.with_file_name("out");
        run(&model, "gguf", &out);
        let file = GgufFile::parse(&fs::read(out.join("model.gguf")).unwrap()).unwrap();
        assert_eq!(file.metadata["general.architecture"], architecture);
        assert_eq!(file.metadata[&format!("{architecture}.expert_count")], 8);
        let mixture = ModelConfig::load(&model).unwrap();
        let (hidden, inner) = (mixture.hidden_size, mixture.mixture.unwrap().expert_size);
        let tensor = |name: &str| {
            file.tensors
                .get(name)
                .map(|tensor| (tensor.kind, &tensor.shape[..]))
        };
        for (part, shape) in [
            ("gate", [8, inner, hidden]),
            ("up", [8, inner, hidden]),
            ("down", [8, hidden, inner]),
        ] {
            let stack = tensor(&format!("blk.1.ffn_{part}_exps.weight"));
            assert_eq!(stack, Some((GgufKind::Q4_1, &shape[..])), "{row}");
        }
        let router = tensor("blk.0.ffn_gate_inp.weight");
        assert_eq!(router, Some((GgufKind::F32, &[8, hidden][..])), "{row}");
        let gate = tensor("blk.0.ffn_gate_inp_shexp.weight");
        assert_eq!(gate, shared.then_some((GgufKind::F32, &[hidden][..])), "{row}");
        let Some(found) = oracle(&["weights", text(&model), text(&out)]) else {
            continue;
        };
        assert!(
            found["max_relative_error"].as_f64().unwrap() < 9e-3,
            "{row}: {found}"
        );
        assert!(found["linears"].as_u64().unwrap() > 3 * 8 * 3, "{row}: {found}");
    }
}

/// transformers has no reader of Mixtral's file: it takes the architecture `llama` for a dense model.
#[test]
fn transformers_computes_from_a_gguf_of_experts_what_we_compute() {
    for row in ["qwen3-30b-a3b", "qwen2-57b-a14b"] {
        let model = mixture(row);
        let (out, dump) = (model.with_file_name("out"), model.with_file_name("dump"));
        run(&model, "gguf", &out);
        let ids = tokens_of(dualgrain::SAMPLE_EVALUATION, &model, 128);
        write_dump(&dump, &ids, &logits(&in_floats(&model), &ids));
        let file = dump.join("model.safetensors");
        let Some(found) = oracle(&["logits", text(&out), text(&file)]) else {
            return;
        };
        assert!(found["mean_kl"].as_f64().unwrap() <= 0.005, "{row}: {found}");
    }
}

#[test]
fn a_mixture_that_the_architecture_computes_otherwise_is_refused() {
    let model = mixture("qwen3-moe-dense-ends");
    let out = model.with_file_name("out");
    let message = failure(&["export", text(&model), "--format", "gguf", "--out", text(&out)]);
    assert!(message.contains("norm_topk_prob"), "{message}");
    assert!(!out.exists());
}
