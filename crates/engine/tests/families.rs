//! Every family against logits of transformers on small random models (tests/fixtures/families/README.md).

mod golden;

use dualgrain_device::Activation;
use dualgrain_engine::{FfnKind, ModelConfig, Position, QkNorm, RopeConfig, RopeScaling};
use golden::{FAMILIES, Golden, family, in_steps, load, prefill, read_config, read_golden, rewrite};

/// Largest difference allowed, as a part of the logits' span of about 20. Rounding in f32 alone (the reference
/// against its own forward in double precision) reaches 2e-6 of it.
const TOLERANCE: f32 = 1e-5;

/// What the smallest wrong feature must at least change, as a part of the span.
const FEATURE: f32 = 5e-3;

#[test]
fn logits_agree_with_transformers_in_both_spellings_of_the_config() {
    for case in FAMILIES {
        let (dir, golden) = (family(case), read_golden(&family(case)));
        for spelling in ["config.json", "config_v4.json"] {
            let model = load(&dir, read_config(&dir.join(spelling)));
            let difference = golden.max_difference(&prefill(&model, &golden.ids));
            println!(
                "{case} {spelling}: max difference {difference:e}, span {}",
                golden.span()
            );
            assert!(
                difference <= TOLERANCE * golden.span(),
                "{case} {spelling}: {difference}"
            );
        }
    }
}

#[test]
fn greedy_continuations_are_those_of_transformers() {
    for case in FAMILIES {
        let golden = read_golden(&family(case));
        let model = load(&family(case), read_config(&family(case).join("config.json")));
        let tokens = golden::greedy(&model, &golden.greedy_prompt, golden.greedy.len());
        assert_eq!(tokens, golden.greedy, "{case}");
    }
}

#[test]
fn the_size_of_steps_changes_no_bit() {
    for case in FAMILIES {
        let golden = read_golden(&family(case));
        let model = load(&family(case), read_config(&family(case).join("config.json")));
        let whole = prefill(&model, &golden.ids);
        for step_tokens in [1, 7, 33] {
            assert_eq!(
                in_steps(&model, &golden.ids, step_tokens),
                whole,
                "{case}, steps of {step_tokens}"
            );
        }
    }
}

#[test]
fn sequences_in_one_step_do_not_see_each_other() {
    for case in ["llama3", "bloom", "opt"] {
        let golden = read_golden(&family(case));
        let model = load(&family(case), read_config(&family(case).join("config.json")));
        let alone = prefill(&model, &golden.ids);
        let vocab_size = model.config().vocab_size;
        let mut session = golden::session(&model, 3);
        // Pages of a forgotten sequence are reused, and the others move along unevenly.
        session.run(&[(1, &golden.ids[..50])]).unwrap();
        session.reset(1);
        session
            .run(&[(2, &golden.ids[5..9]), (0, &golden.ids[..10])])
            .unwrap();
        let (head, tail) = golden.ids.split_at(40);
        session
            .run(&[(0, &head[10..]), (1, &tail[..3]), (2, &head[..2])])
            .unwrap();
        session.run(&[(1, &[1, 2]), (0, tail), (2, &[3])]).unwrap();
        let rows = (2..2 + tail.len() as u32).collect::<Vec<_>>();
        let together = golden::logits(&mut session, &rows);
        assert_eq!(together, alone[40 * vocab_size..], "{case}");
    }
}

#[test]
fn forgetting_the_end_of_a_sequence_lets_it_go_another_way() {
    let golden = read_golden(&family("qwen3"));
    let model = load(
        &family("qwen3"),
        read_config(&family("qwen3").join("config.json")),
    );
    let mut session = golden::session(&model, 1);
    session.prefill(0, &golden.ids[..30]).unwrap();
    session.prefill(0, &[5; 40]).unwrap();
    session.truncate(0, 30);
    assert_eq!(session.len(0), 30);
    session.prefill(0, &golden.ids[30..]).unwrap();
    let last = golden.ids.len() as u32 - 31;
    let vocab_size = model.config().vocab_size;
    let expected = prefill(&model, &golden.ids);
    assert_eq!(
        golden::logits(&mut session, &[last]),
        expected[expected.len() - vocab_size..]
    );
}

/// A change of the configuration that must be visible in the logits.
fn assert_config_matters(case: &str, what: &str, change: impl FnOnce(&mut ModelConfig)) {
    let mut config = read_config(&family(case).join("config.json"));
    let before = config.clone();
    change(&mut config);
    assert_ne!(
        config, before,
        "{case}: {what} changed nothing in the configuration"
    );
    assert_far(case, what, &read_golden(&family(case)), &family(case), config);
}

/// Tensors that must matter: those that match are zeroed.
fn assert_tensors_matter(case: &str, what: &str, matches: impl Fn(&str) -> bool) {
    let tmp = tempfile::tempdir().unwrap();
    let changed = rewrite(&family(case), &tmp.path().join("model"), |name, bytes| {
        let zeroed = if matches(name) {
            vec![0; bytes.len()]
        } else {
            bytes.to_vec()
        };
        Some(zeroed)
    });
    let config = read_config(&family(case).join("config.json"));
    assert_far(case, what, &read_golden(&family(case)), &changed, config);
}

/// A feature whose tensors are left out with it.
fn assert_feature_matters(case: &str, part: &str, switch_off: impl FnOnce(&mut ModelConfig)) {
    let tmp = tempfile::tempdir().unwrap();
    let changed = rewrite(&family(case), &tmp.path().join("model"), |name, bytes| {
        (!name.contains(part)).then(|| bytes.to_vec())
    });
    let mut config = read_config(&family(case).join("config.json"));
    switch_off(&mut config);
    assert_far(case, part, &read_golden(&family(case)), &changed, config);
}

fn assert_far(case: &str, what: &str, golden: &Golden, dir: &std::path::Path, config: ModelConfig) {
    let difference = golden.max_difference(&prefill(&load(dir, config), &golden.ids));
    println!("{case}, {what}: max difference {difference}");
    assert!(
        difference > FEATURE * golden.span(),
        "{case}: {what} changes logits by {difference} only"
    );
}

fn plain_rope(config: &mut ModelConfig) {
    if let Position::Rope(rope) = &mut config.position {
        rope.scaling = RopeScaling::Default;
    }
}

#[test]
fn rotary_embedding_and_its_scaling_matter() {
    for case in ["llama3", "llama3-sharded", "llama-linear"] {
        assert_config_matters(case, "rope scaling off", plain_rope);
    }
    assert_config_matters("llama3", "linear for llama3 scaling", |config| {
        if let Position::Rope(rope) = &mut config.position {
            rope.scaling = RopeScaling::Linear { factor: 8.0 };
        }
    });
    for case in ["llama3", "mistral", "qwen2", "qwen3"] {
        assert_config_matters(case, "rope theta 10000", |config| {
            let (theta, scaling) = (10_000.0, RopeScaling::Default);
            config.position = Position::Rope(RopeConfig { theta, scaling });
        });
    }
    for case in ["llama2", "llama2-f16"] {
        assert_config_matters(case, "rope off", |config| config.position = Position::None);
    }
}

#[test]
fn alibi_matters() {
    for case in ["bloom", "bloom-6heads"] {
        assert_config_matters(case, "ALiBi off", |config| config.position = Position::None);
    }
}

#[test]
fn sliding_windows_matter_to_the_token() {
    for case in ["mistral", "qwen2-window"] {
        for window in [None, Some(15), Some(17)] {
            assert_config_matters(case, &format!("window {window:?}"), |config| {
                let windows = config.sliding_windows.iter_mut().filter(|w| w.is_some());
                windows.for_each(|w| *w = window);
            });
        }
    }
    assert_config_matters("qwen2-window", "window on every layer", |config| {
        config.sliding_windows.fill(Some(16));
    });
    assert_config_matters("qwen2", "window that is switched off", |config| {
        config.sliding_windows.fill(Some(16));
    });
}

#[test]
fn biases_matter() {
    let cases = [
        ("llama-bias", "self_attn.q_proj.bias"),
        ("llama-bias", "self_attn.o_proj.bias"),
        ("llama-bias", "mlp.gate_proj.bias"),
        ("llama-bias", "mlp.up_proj.bias"),
        ("llama-bias", "mlp.down_proj.bias"),
        ("qwen2", "self_attn.q_proj.bias"),
        ("qwen2", "self_attn.v_proj.bias"),
        ("opt", "self_attn.v_proj.bias"),
        ("opt", "out_proj.bias"),
        ("opt", "fc1.bias"),
        ("opt", "fc2.bias"),
        ("opt", "layer_norm.bias"),
        ("bloom", "query_key_value.bias"),
        ("bloom", "dense_h_to_4h.bias"),
        ("bloom", "ln_f.bias"),
    ];
    for (case, part) in cases {
        assert_tensors_matter(case, part, |name| name.contains(part));
    }
}

#[test]
fn norms_matter() {
    for case in ["qwen3", "qwen3-f32"] {
        assert_feature_matters(case, "_norm.", |config| config.qk_norm = QkNorm::None);
    }
    for case in ["bloom", "bloom-6heads"] {
        assert_feature_matters(case, "word_embeddings_layernorm", |config| {
            config.embedding_norm = false
        });
    }
    for case in ["llama3", "qwen3", "bloom"] {
        assert_config_matters(case, "norm eps 1e-6", |config| config.norm_eps = 1e-6);
    }
}

#[test]
fn learned_positions_and_activations_matter() {
    assert_config_matters("opt", "position offset 0", |config| {
        config.position = Position::Learned { offset: 0 };
        config.max_positions += 2;
    });
    assert_tensors_matter("opt", "positions off", |name| name.contains("embed_positions"));
    assert_config_matters("opt", "gelu for relu", |config| {
        config.ffn = FfnKind::Plain(Activation::Gelu)
    });
    assert_config_matters("bloom", "relu for gelu", |config| {
        config.ffn = FfnKind::Plain(Activation::Relu)
    });
    assert_config_matters("llama2", "relu for silu", |config| {
        config.ffn = FfnKind::Gated(Activation::Relu)
    });
}
