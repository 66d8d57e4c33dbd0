//! Configurations of public models, made small, against the logits of transformers (tests/fixtures/configs/README.md).

#[path = "../golden/mod.rs"]
mod golden;
mod greedy;
mod variants;

use std::path::Path;
use std::sync::Arc;

use dualgrain_cpu::{CpuDevice, Isa};
use dualgrain_device::naive::NaiveDevice;
use dualgrain_device::{Activation, GateLimit};
use dualgrain_engine::{
    Family, FfnKind, MixtureConfig, ModelConfig, Position, QkNorm, RopeConfig, RopeScaling, SharedExpert,
};
use variants::{ON_DEVICES, Outcome, Variant, difference, read_variants, run, write_model};

/// Largest difference allowed, as a part of the logits' span. Rounding in f32 alone (the reference against its own forward in
/// double precision) reaches 1.4e-6 of it.
const TOLERANCE: f32 = 1e-5;

/// What a feature must change when it is switched off, as a part of the span.
const FEATURE: f32 = 1e-3;

/// Where users read what is refused and why.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/models.md");

#[test]
fn public_configurations_give_the_logits_of_transformers() {
    let mut num_compared = 0;
    for variant in read_variants() {
        let Outcome::Runs { logits, .. } = &variant.outcome else {
            continue;
        };
        let dir = tempfile::tempdir().unwrap();
        write_model(&variant, dir.path(), |_| true);
        let config =
            ModelConfig::load(dir.path()).unwrap_or_else(|error| panic!("{}: {error}", variant.name));
        let (difference, span) = difference(&run(dir.path(), config), logits);
        assert!(
            difference <= TOLERANCE * span,
            "{}: {difference:e} of {span}",
            variant.name
        );
        num_compared += 1;
    }
    println!("{num_compared} configurations compared");
    assert!(num_compared >= 100, "only {num_compared} configurations");
}

#[test]
fn what_is_refused_is_named_and_documented() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let mut num_refused = 0;
    for Variant {
        name,
        config,
        outcome,
        ..
    } in read_variants()
    {
        let Outcome::Refused(words) = outcome else {
            continue;
        };
        let error = match ModelConfig::from_json(&config.to_string()) {
            Ok(_) => panic!("{name} is read"),
            Err(error) => error.to_string(),
        };
        for word in words {
            assert!(error.contains(&word), "{name}: `{error}` lacks {word}");
            assert!(
                page.contains(&format!("`{word}`")),
                "{name}: docs/models.md lacks `{word}`"
            );
        }
        num_refused += 1;
    }
    assert!(num_refused >= 15, "only {num_refused} configurations are refused");
}

/// A change of a configuration that takes one feature away; `None` where it has none.
type Switch = (&'static str, fn(&ModelConfig) -> Option<ModelConfig>);

const SWITCHES: [Switch; 25] = [
    ("rope scaling", without_rope_scaling),
    ("rope theta", with_another_theta),
    ("windows", without_windows),
    ("ALiBi", without_alibi),
    ("positions", |config| match config.position {
        Position::Learned { offset } if offset > 0 => Some(ModelConfig {
            position: Position::Learned { offset: 0 },
            max_positions: config.max_positions + offset,
            ..config.clone()
        }),
        _ => None,
    }),
    ("activation", |config| {
        let ffn = match config.ffn {
            FfnKind::Gated(_) => FfnKind::Gated(Activation::Relu),
            FfnKind::Plain(Activation::Relu) => FfnKind::Plain(Activation::Gelu),
            FfnKind::Plain(_) => FfnKind::Plain(Activation::Relu),
        };
        Some(ModelConfig {
            ffn,
            ..config.clone()
        })
    }),
    ("layers without rotation", |config| {
        let rotated_layers = vec![true; config.num_layers];
        (config.rotated_layers != rotated_layers).then(|| ModelConfig {
            rotated_layers,
            ..config.clone()
        })
    }),
    ("the part that is rotated", |config| {
        let is_plain =
            matches!(&config.position, Position::Rope(rope) if rope.scaling == RopeScaling::Default);
        (is_plain && config.rotary_dim != config.head_dim).then(|| ModelConfig {
            rotary_dim: config.head_dim,
            ..config.clone()
        })
    }),
    ("pairs of neighbours", |config| {
        config.rotates_neighbours.then(|| ModelConfig {
            rotates_neighbours: false,
            ..config.clone()
        })
    }),
    ("scale of scores", |config| {
        let usual = 1.0 / (config.head_dim as f32).sqrt();
        let is_other = |scale: &f32| (scale / usual - 1.0).abs() > 0.01;
        config.attention_scale.filter(is_other).map(|_| ModelConfig {
            attention_scale: None,
            ..config.clone()
        })
    }),
    ("scales of embedding and logits", |config| {
        let scales = [config.embedding_scale, config.head_scale];
        (scales != [1.0; 2] || config.stream_divisor != 1.0).then(|| ModelConfig {
            embedding_scale: 1.0,
            stream_divisor: 1.0,
            head_scale: 1.0,
            ..config.clone()
        })
    }),
    ("heads' norms", |config| {
        (config.qk_norm != QkNorm::None).then(|| ModelConfig {
            qk_norm: QkNorm::None,
            ..config.clone()
        })
    }),
    ("offset of norms", |config| {
        (config.norm_offset != 0.0).then(|| ModelConfig {
            norm_offset: 0.0,
            ..config.clone()
        })
    }),
    ("parallel residuals", |config| {
        config.parallel.then(|| ModelConfig {
            parallel: false,
            ..config.clone()
        })
    }),
    ("rope of windows", |config| {
        let is_other = |rope: &RopeConfig| Position::Rope(rope.clone()) != config.position;
        config
            .local_rope
            .as_ref()
            .filter(|rope| is_other(rope))
            .map(|_| ModelConfig {
                local_rope: None,
                ..config.clone()
            })
    }),
    ("cap of scores", |config| {
        config.score_cap.map(|_| ModelConfig {
            score_cap: None,
            ..config.clone()
        })
    }),
    ("weights of experts over their sum", |config| {
        with_mixture(config, |mixture| {
            mixture.rule.normalized = !mixture.rule.normalized
        })
    }),
    ("experts of a token", |config| {
        with_mixture(config, |mixture| mixture.rule.num_chosen -= 1)
    }),
    ("scale of experts", |config| {
        let is_scaled = config.mixture.as_ref()?.rule.scale != 1.0;
        is_scaled.then(|| with_mixture(config, |mixture| mixture.rule.scale = 1.0))?
    }),
    ("bias that chooses experts", |config| {
        let has_bias = config.mixture.as_ref()?.has_selection_bias;
        has_bias.then(|| with_mixture(config, |mixture| mixture.has_selection_bias = false))?
    }),
    ("gate of the shared expert", |config| {
        let shared = config.mixture.as_ref()?.shared.filter(|shared| shared.gated)?;
        let ungated = SharedExpert {
            gated: false,
            ..shared
        };
        with_mixture(config, |mixture| mixture.shared = Some(ungated))
    }),
    ("sinks", |config| {
        config.attention_sinks.then(|| ModelConfig {
            attention_sinks: false,
            ..config.clone()
        })
    }),
    ("limit of gates", |config| match config.ffn {
        FfnKind::Gated(Activation::Clamped(_)) => Some(ModelConfig {
            ffn: FfnKind::Gated(Activation::Clamped(GateLimit::USUAL)),
            ..config.clone()
        }),
        _ => None,
    }),
    ("whole dimensions of a ramp", |config| {
        let Position::Rope(rope) = &config.position else {
            return None;
        };
        let mut rope = rope.clone();
        match &mut rope.scaling {
            RopeScaling::Yarn { truncate, .. } if config.family == Family::GptOss => *truncate = !*truncate,
            _ => return None,
        }
        Some(ModelConfig {
            position: Position::Rope(rope),
            ..config.clone()
        })
    }),
    ("cap of logits", |config| {
        config.logit_cap.map(|_| ModelConfig {
            logit_cap: None,
            ..config.clone()
        })
    }),
];

fn with_mixture(config: &ModelConfig, change: impl FnOnce(&mut MixtureConfig)) -> Option<ModelConfig> {
    let mut mixture = config.mixture.clone()?;
    change(&mut mixture);
    Some(ModelConfig {
        mixture: Some(mixture),
        ..config.clone()
    })
}

fn without_rope_scaling(config: &ModelConfig) -> Option<ModelConfig> {
    let Position::Rope(RopeConfig { theta, scaling }) = &config.position else {
        return None;
    };
    (*scaling != RopeScaling::Default).then(|| ModelConfig {
        position: Position::Rope(RopeConfig {
            theta: *theta,
            scaling: RopeScaling::Default,
        }),
        ..config.clone()
    })
}

fn with_another_theta(config: &ModelConfig) -> Option<ModelConfig> {
    let Position::Rope(rope) = &config.position else {
        return None;
    };
    let theta = if rope.theta > 2e4 { 1e4 } else { 1e6 };
    let position = Position::Rope(RopeConfig {
        theta,
        ..rope.clone()
    });
    Some(ModelConfig {
        position,
        ..config.clone()
    })
}

fn without_windows(config: &ModelConfig) -> Option<ModelConfig> {
    let is_short = |window: &Option<usize>| window.is_some_and(|window| window < variants::TOKENS);
    config.sliding_windows.iter().any(is_short).then(|| ModelConfig {
        sliding_windows: vec![None; config.num_layers],
        ..config.clone()
    })
}

fn without_alibi(config: &ModelConfig) -> Option<ModelConfig> {
    (config.position == Position::Alibi).then(|| ModelConfig {
        position: Position::None,
        ..config.clone()
    })
}

#[test]
fn every_feature_of_a_configuration_shows_in_its_logits() {
    for variant in read_variants() {
        let Outcome::Runs { logits, .. } = &variant.outcome else {
            continue;
        };
        let dir = tempfile::tempdir().unwrap();
        write_model(&variant, dir.path(), |_| true);
        let config = ModelConfig::load(dir.path()).unwrap();
        for (what, switch) in SWITCHES {
            let Some(changed) = switch(&config) else { continue };
            assert_far(
                &variant,
                what,
                &run_without(&variant, dir.path(), changed),
                logits,
            );
        }
    }
}

/// What a configuration does not know of is no tensor of the model.
fn run_without(variant: &Variant, dir: &Path, config: ModelConfig) -> Vec<f32> {
    let (has_norms, mixture) = (config.qk_norm != QkNorm::None, config.mixture.as_ref());
    let has_bias = mixture.is_none_or(|mixture| mixture.has_selection_bias);
    let has_gate = mixture.is_none_or(MixtureConfig::has_gate);
    let has_sinks = config.attention_sinks;
    let is_left = |name: &str| {
        (!has_norms && (name.contains("q_norm") || name.contains("k_norm")))
            || (!has_bias && name.contains("e_score_correction_bias"))
            || (!has_gate && name.contains("shared_expert_gate"))
            || (!has_sinks && name.ends_with("sinks"))
    };
    if !variant.tensors().any(|(name, _)| is_left(&name)) {
        return run(dir, config);
    }
    let other = tempfile::tempdir().unwrap();
    write_model(variant, other.path(), |name| !is_left(name));
    run(other.path(), config)
}

fn assert_far(variant: &Variant, what: &str, got: &[f32], logits: &[f32]) {
    let (difference, span) = difference(got, logits);
    let name = &variant.name;
    assert!(
        difference > FEATURE * span,
        "{name}: {what} changes logits by {difference} of {span} only"
    );
}

#[test]
fn a_block_that_predicts_further_tokens_is_left_out() {
    let mut variant = read_variants()
        .into_iter()
        .find(|variant| variant.name == "glm-4.5")
        .unwrap();
    let Outcome::Runs { shapes, logits, .. } = &mut variant.outcome else {
        panic!("it is refused")
    };
    for (name, shape) in [("eh_proj", [80, 160]), ("mlp.experts.0.up_proj", [24, 80])] {
        shapes.push((format!("model.layers.3.{name}.weight"), shape.to_vec()));
    }
    let logits = logits.clone();
    let dir = tempfile::tempdir().unwrap();
    write_model(&variant, dir.path(), |_| true);
    let config = ModelConfig::load(dir.path()).unwrap();
    let (difference, span) = difference(&run(dir.path(), config), &logits);
    assert!(difference <= TOLERANCE * span, "{difference:e} of {span}");
}

#[test]
fn biases_show_in_the_logits() {
    for variant in read_variants() {
        let Outcome::Runs { logits, .. } = &variant.outcome else {
            continue;
        };
        let kinds: Vec<String> = variant
            .tensors()
            .map(|(name, _)| name)
            .filter(|name| name.ends_with("bias"))
            .collect();
        for kind in [
            "self_att",
            "attention.",
            "mlp",
            "fc1",
            "out_proj",
            "ln_f",
            "o_proj",
            "router",
            "gate_up_proj_bias",
            "down_proj_bias",
            "e_score_correction_bias",
        ] {
            if !kinds.iter().any(|name| name.contains(kind)) {
                continue;
            }
            let dir = tempfile::tempdir().unwrap();
            variants::write_model_with(&variant, dir.path(), |name| {
                name.ends_with("bias") && name.contains(kind)
            });
            let config = ModelConfig::load(dir.path()).unwrap();
            assert_far(&variant, kind, &run(dir.path(), config), logits);
        }
    }
}

#[test]
fn newer_families_give_the_same_bits_on_the_naive_device_and_on_every_instruction_set() {
    let variants = read_variants().into_iter();
    let compared = variants.filter(|variant| ON_DEVICES.contains(&variant.name.as_str()));
    let compared = compared.map(|variant| {
        let dir = tempfile::tempdir().unwrap();
        write_model(&variant, dir.path(), |_| true);
        let config = ModelConfig::load(dir.path()).unwrap();
        let expected = variants::run_on(Arc::new(NaiveDevice::new()), dir.path(), config.clone());
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let device = Arc::new(CpuDevice::with_isa(2, isa).unwrap());
            let got = variants::run_on(device, dir.path(), config.clone());
            assert_eq!(got, expected, "{}, {}", variant.name, isa.name());
        }
    });
    assert_eq!(compared.count(), ON_DEVICES.len());
}
