//! The newer families, end to end: a random model of it is planned, quantized, loaded and continued, and stays near its original.

#[path = "../../../engine/tests/golden/mod.rs"]
mod golden;
#[path = "../../../engine/tests/configs/variants.rs"]
mod variants;

use std::fs;
use std::path::Path;

use dualgrain::engine::ModelConfig;
use dualgrain::{
    CacheScheme, Engine, LinearScheme, Options, QuantOptions, Quantizer, Request, SAMPLE_CALIBRATION,
    SchemeRule, SessionLimits, Smoothing, load,
};
use serde_json::json;
use variants::{Outcome, Variant, read_variants, write_model};

/// The vocabulary of the bundled tokenizer.
const VOCAB: usize = 8_192;
/// What quantizing may change, as a part of how far logits spread: weights are random and large, so errors grow from block to block.
/// Logits that have nothing to do with each other are 1.4 apart.
const NEAR: f32 = 0.75;

/// Rows of the families that have no tests of their own in the crate quant, and one to compare them with.
const ROWS: [&str; 18] = [
    "Llama-3.2-1B-Instruct",
    "phi-3-mini-4k-window",
    "phi-3-partial-rotary",
    "granite-3.1-2b",
    "granite-with-biases",
    "smollm3-windows",
    "starcoder2-3b",
    "glm-4-9b",
    "glm-4-9b-0414",
    "gemma-2b",
    "gemma-2-27b-it",
    "gemma-3-1b-it",
    "olmo-2-0325-32b",
    "olmo-3-7b",
    "aya-expanse-8b",
    "command-r7b-12-2024",
    "pythia-160m",
    "redpajama-3b",
];

/// Rows whose blocks add to the residual stream in other ways, and so are corrected in other ways.
const CORRECTED: [&str; 6] = [
    "glm-4.5",
    "qwen1.5-moe-a2.7b",
    "pythia-160m",
    "aya-expanse-8b",
    "olmo-2-0325-32b",
    "gemma-2-27b-it",
];

#[test]
fn a_model_of_every_newer_family_is_quantized_and_runs() {
    assert_quantized(&ROWS, (2, 64));
}

/// Every expert learns from a part of the text alone, so that it takes more of it.
#[test]
fn a_model_whose_experts_are_stacked_is_quantized_and_runs() {
    assert_quantized(&["gpt-oss-20b"], (8, 64));
}

/// With a shared expert, with a feed-forward of another width in some layers, and with both. Random weights let a router choose other
/// experts for a little noise, so that four bits would say little of them.
#[test]
fn mixtures_are_quantized_and_run() {
    let rows = [
        "mixtral-8x7b",
        "qwen2-57b-a14b",
        "qwen1.5-moe-dense-middle",
        "glm-4.5",
    ];
    let options = QuantOptions {
        schemes: of_every_role("w8"),
        ..QuantOptions::default()
    };
    assert_quantized_with(&rows, (2, 64), &options, 0.3);
}

/// Routers, experts with and without biases, shared experts with and without a gate, blocks without experts.
#[test]
fn a_rotated_mixture_stays_the_model() {
    let rows = [
        "mixtral-8x7b",
        "qwen1.5-moe-a2.7b",
        "qwen3-moe-dense-ends",
        "olmoe-1b-7b-0924",
        "glm-4.5",
        "gpt-oss-20b",
    ];
    let options = QuantOptions {
        schemes: of_every_role("float"),
        lm_head: LinearScheme::Float,
        smoothing: Smoothing::Off,
        rotate: true,
        kv_cache: CacheScheme::F16,
        ..QuantOptions::default()
    };
    // What is left is the rounding of the cache.
    assert_quantized_with(&rows, (2, 64), &options, 5e-3);
}

#[test]
fn the_text_model_of_gemma_3_with_pictures_is_quantized_and_runs() {
    let row = read_variants()
        .into_iter()
        .find(|row| row.name == "gemma-3-1b-it");
    let variant = with_text(row.unwrap());
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (folder.path().join("model"), folder.path().join("out"));
    write_model(&variant, &model, |_| true);
    let config = json!({
        "model_type": "gemma3",
        "architectures": ["Gemma3ForConditionalGeneration"],
        "vision_config": {"hidden_size": 8},
        "text_config": variant.config,
    });
    fs::write(model.join("config.json"), config.to_string()).unwrap();
    add_tokenizer(&model);
    let quantizer = Quantizer::new(&model, &out).calibration(SAMPLE_CALIBRATION);
    quantizer.windows(2, 64).threads(2).run().unwrap();
    continue_text(&out, "gemma3");
    assert_near(&model, &out, ("gemma3", NEAR));
}

#[test]
fn weights_are_corrected_whatever_a_block_adds_to_the_stream() {
    assert_quantized(&CORRECTED, (128, 16));
}

/// The rules of a scheme for all linears of the blocks.
fn of_every_role(scheme: &str) -> Vec<SchemeRule> {
    let rule = |role: &str| format!("{role}={scheme}").parse().unwrap();
    ["qkv", "out", "up", "down"].map(rule).into()
}

fn assert_quantized(names: &[&str], windows: (usize, usize)) {
    assert_quantized_with(names, windows, &QuantOptions::default(), NEAR);
}

fn assert_quantized_with(
    names: &[&str],
    (num_windows, window_tokens): (usize, usize),
    options: &QuantOptions,
    near: f32,
) {
    let mut variants = read_variants();
    for &name in names {
        let place = variants.iter().position(|variant| variant.name == name);
        let variant = with_text(variants.swap_remove(place.unwrap_or_else(|| panic!("no row {name}"))));
        let folder = tempfile::tempdir().unwrap();
        let (model, out) = (folder.path().join("model"), folder.path().join("out"));
        write_model(&variant, &model, |_| true);
        add_tokenizer(&model);
        let quantizer = Quantizer::new(&model, &out)
            .calibration(SAMPLE_CALIBRATION)
            .options(options.clone());
        let quantized = quantizer.windows(num_windows, window_tokens).threads(2).run();
        quantized.unwrap_or_else(|error| panic!("{name}: {error}"));
        continue_text(&out, name);
        assert_near(&model, &out, (name, near));
    }
}

fn add_tokenizer(model: &Path) {
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/llama-tiny/tokenizer.json");
    fs::copy(tokenizer, model.join("tokenizer.json")).unwrap();
}

/// The row with the bundled tokenizer's vocabulary.
fn with_text(mut variant: Variant) -> Variant {
    variant.config["vocab_size"] = json!(VOCAB);
    if let Outcome::Runs { shapes, .. } = &mut variant.outcome {
        let of_tokens = |name: &str| {
            ["embed_tokens", "embed_in", "word_embeddings.weight", "lm_head"]
                .iter()
                .any(|part| name.contains(part))
        };
        let tables = shapes.iter_mut().filter(|(name, _)| of_tokens(name));
        tables.for_each(|(_, shape)| shape[0] = VOCAB);
    }
    variant
}

fn continue_text(out: &Path, name: &str) {
    let loaded = load(out, &Options::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut engine = Engine::new(loaded.model, loaded.tokenizer, SessionLimits::new(1, 64, 64)).unwrap();
    let mut request = Request {
        prompt: engine.tokenizer().encode("The old captain", true).unwrap(),
        ..Request::default()
    };
    request.options.max_tokens = Some(8);
    request.options.ignore_eos = true;
    let (generation, _) = engine
        .generate(request, &mut |_| std::ops::ControlFlow::Continue(()))
        .unwrap();
    assert_eq!(generation.tokens.len(), 8, "{name}");
}

fn assert_near(model: &Path, out: &Path, (name, near): (&str, f32)) {
    let logits = |dir: &Path| variants::run(dir, ModelConfig::load(dir).unwrap());
    let (original, quantized) = (logits(model), logits(out));
    let mean = original.iter().sum::<f32>() / original.len() as f32;
    let spread: f32 = original.iter().map(|logit| (logit - mean).powi(2)).sum();
    let error: f32 = original
        .iter()
        .zip(&quantized)
        .map(|(a, b)| (a - b).powi(2))
        .sum();
    let share = (error / spread).sqrt();
    println!("{name}: {share:.3} of the logits' spread");
    assert!(share < near, "{name}: {share}");
}
