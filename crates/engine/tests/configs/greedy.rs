//! Greedy continuations of every row against those of transformers, token for token.

use std::collections::BTreeSet;
use std::sync::Arc;

use dualgrain_cpu::CpuDevice;
use dualgrain_engine::{ModelConfig, Position, RopeScaling};

use crate::variants::{Continuation, Outcome, PROMPT, STEPS, Variant, proceed, read_variants, write_model};
use crate::{TOLERANCE, without_rope_scaling, without_windows};

/// How far the best token of each step is ahead of the second, at the least, as a part of the span: oracle/continuations.py sees to
/// it. What logits may differ by is a hundredth of it, so it never decides a token.
const MARGIN: f32 = 1e-3;
const _: () = assert!(MARGIN >= 100.0 * TOLERANCE);

/// Rows that run, with their continuations.
fn rows() -> Vec<(Variant, Vec<Continuation>)> {
    let rows = read_variants().into_iter().filter_map(|mut variant| {
        let Outcome::Runs { continuations, .. } = &mut variant.outcome else {
            return None;
        };
        let continuations = std::mem::take(continuations);
        Some((variant, continuations))
    });
    rows.collect()
}

fn config(variant: &Variant) -> ModelConfig {
    ModelConfig::from_json(&variant.config.to_string()).unwrap()
}

/// What the engine makes of the prompts of a row, its model being read as `config` says.
fn continued(variant: &Variant, config: &ModelConfig, continuations: &[Continuation]) -> Vec<Vec<u32>> {
    let dir = tempfile::tempdir().unwrap();
    write_model(variant, dir.path(), |_| true);
    let device = Arc::new(CpuDevice::new(2).unwrap());
    let continued = continuations.iter().map(|how| {
        let config = config.clone();
        proceed(Arc::clone(&device), dir.path(), config, how)
    });
    continued.collect()
}

fn num_distinct(tokens: &[u32]) -> usize {
    tokens.iter().collect::<BTreeSet<_>>().len()
}

#[test]
fn continuations_are_those_of_transformers() {
    let rows = rows();
    for (variant, continuations) in &rows {
        let got = continued(variant, &config(variant), continuations);
        for (got, expected) in got.iter().zip(continuations) {
            assert_eq!(expected.tokens.len(), STEPS, "{}", variant.name);
            assert_eq!(
                got, &expected.tokens,
                "{}, the last {} left out",
                variant.name, expected.apart
            );
        }
        assert_eq!(continuations[0].apart, 0, "{}", variant.name);
        let most = continuations.iter().map(|how| num_distinct(&how.tokens)).max();
        assert!(most >= Some(16), "{}: {most:?} tokens in a circle", variant.name);
    }
    println!("{} rows continued", rows.len());
    assert!(rows.len() >= 170, "only {} rows", rows.len());
}

/// Whether the rotary embedding was first trained for fewer tokens than the prompt has.
fn is_beyond_training(config: &ModelConfig) -> bool {
    let Position::Rope(rope) = &config.position else {
        return false;
    };
    let original = match rope.scaling {
        RopeScaling::Default => return false,
        // A model with it was trained for what it says.
        RopeScaling::Linear { .. } => config.max_positions as f64,
        RopeScaling::Dynamic { max_positions, .. } => max_positions,
        RopeScaling::Yarn {
            original_max_positions,
            ..
        }
        | RopeScaling::LongRope {
            original_max_positions,
            ..
        }
        | RopeScaling::Llama3 {
            original_max_positions,
            ..
        } => original_max_positions,
    };
    original < PROMPT as f64
}

#[test]
fn continuations_beyond_a_window_are_others_without_it() {
    assert_others("windows", without_windows);
}

#[test]
fn continuations_beyond_the_first_training_are_others_without_scaling() {
    assert_others("rope scaling", |config| {
        let changed = without_rope_scaling(config);
        changed.filter(|_| is_beyond_training(config))
    });
}

/// Nine of ten rows that have a feature continue in another way without it, and there are some.
fn assert_others(what: &str, without: impl Fn(&ModelConfig) -> Option<ModelConfig>) {
    let (mut num_rows, mut num_other) = (0, 0);
    for (variant, continuations) in rows() {
        let Some(changed) = without(&config(&variant)) else {
            continue;
        };
        let got = continued(&variant, &changed, &continuations);
        let mut pairs = got.iter().zip(&continuations);
        num_rows += 1;
        num_other += usize::from(pairs.any(|(got, expected)| *got != expected.tokens));
    }
    println!("{what}: {num_other} of {num_rows} rows continue in another way without");
    assert!(num_rows >= 20, "{what}: {num_rows} rows");
    assert!(
        10 * num_other >= 9 * num_rows,
        "{what}: {num_other} of {num_rows}"
    );
}
