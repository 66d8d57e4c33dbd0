//! Folders that other programs quantized (tests/fixtures/foreign, oracle/make_foreign_fixtures.py): their linears are the floats that
//! their codes mean, and broken ones are refused in words.

mod broken;
mod fields;
#[path = "../golden/mod.rs"]
mod golden;

use std::fs;
use std::path::{Path, PathBuf};

use dualgrain_engine::{ModelConfig, ModelFolder, Storage, Weights};
use dualgrain_format::LinearWeights;
use dualgrain_format::checkpoint::f32_bytes;
use golden::{load, prefill, read_golden};
use serde_json::Value;

const CASES: [&str; 7] = [
    "gptq-act-order",
    "gptq-older",
    "gptq-v2",
    "awq",
    "compressed-tensors",
    "fp8",
    "mxfp4",
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
        let (name, n) = match case {
            "mxfp4" => ("model.layers.0.mlp.experts.2.gate_up_proj", 2 * config.ffn_size),
            _ => ("model.layers.0.mlp.gate_proj", config.ffn_size),
        };
        let k = config.hidden_size;
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
        ("gptq-act-order", "by gptq (4 bits in groups of 16): 7 linears"),
        ("gptq-older", "by gptq (4 bits in groups of 32): 7 linears"),
        ("gptq-v2", "by gptq (4 bits in one group a row): 7 linears"),
        ("awq", "by awq (4 bits in groups of 16): 7 linears"),
        ("compressed-tensors", "of keys and values, and of activations"),
        ("fp8", "by fp8 (in blocks of 24 x 20): 7"),
        ("mxfp4", "by mxfp4 (4 bits in groups of 32): 8 linears"),
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
        let expected = match case {
            // With the biases of zeros that are beside linears of the older folder.
            "gptq-older" => 13_408 + 256,
            "mxfp4" => 32_708,
            _ => 13_408,
        };
        let parameters = storage.parameters(&folder.weights).unwrap();
        assert_eq!(parameters, expected, "{case}");
    }
    let older = ModelFolder::open(&fixture("gptq-older")).unwrap();
    assert!(
        older.notices.iter().any(|notice| notice.contains("bias")),
        "biases of zeros are told"
    );
}
