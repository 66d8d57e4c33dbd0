//! The three trained models against logits that transformers computed in fp32 arithmetic.

mod golden;

use std::path::{Path, PathBuf};

use dualgrain_testing::skipped;
use golden::{Golden, load, npz, prefill, read_config};

/// The bar of the project for trained models.
const TOLERANCE: f32 = 2e-3;

fn read_golden(dir: &Path) -> Golden {
    let arrays = npz::read(&dir.join("golden.npz"));
    let ids = |name: &str| {
        let ids = arrays[name].chunks_exact(2);
        ids.map(|b| u32::from(u16::from_le_bytes(b.try_into().unwrap())))
            .collect()
    };
    let logits = arrays["logits"].chunks_exact(4);
    Golden {
        ids: ids("ids"),
        logits: logits
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect(),
        greedy_prompt: ids("greedy_prompt"),
        greedy: ids("greedy"),
    }
}

fn assert_agrees(dir: &Path) {
    let golden = read_golden(dir);
    let model = load(dir, read_config(&dir.join("config.json")));
    let difference = golden.max_difference(&prefill(&model, &golden.ids));
    println!(
        "{}: max difference {difference:e}, span {}",
        dir.display(),
        golden.span()
    );
    assert!(difference <= TOLERANCE, "{}: {difference}", dir.display());
    assert_eq!(golden.greedy.len(), 64);
    let tokens = golden::greedy(&model, &golden.greedy_prompt, golden.greedy.len());
    assert_eq!(tokens, golden.greedy, "{}", dir.display());
}

#[test]
fn the_bundled_model_agrees_with_transformers() {
    assert_agrees(Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../models/llama-tiny"
    )));
}

#[test]
fn larger_and_opt_models_agree_with_transformers() {
    for name in ["llama-small", "opt-tiny"] {
        let shared = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/models");
        let dir: PathBuf = [shared, name].iter().collect();
        if dir.exists() {
            assert_agrees(&dir);
        } else {
            skipped(
                "shared",
                format_args!("{name} was not compared with transformers"),
            );
        }
    }
}
