//! What `cost` is asked: the model in config.json, and how it is run.

use std::path::Path;

use anyhow::{Result, ensure};
use dualgrain::engine::{
    FfnKind, ModelConfig, Position, Weights, WeightsError, folder_hint, judge, products,
};
use dualgrain::format::{CacheScheme, GroupSize, LinearScheme};
use dualgrain::{CARD_STEP_TOKENS, CPU_STEP_TOKENS};
use dualgrain_device::CacheFormat;
use dualgrain_hub::ModelName;
use dualgrain_perf::MachineKind;
use dualgrain_perf::cost::{Linear, Network, Scheme, Workload};

use crate::cli::arguments::{Cost as Options, CostScheme, Kv, LmHead};

/// Weights that share a group scale where the folder does not say.
const GROUP_SIZE: GroupSize = GroupSize::Along(128);
/// Tokens of a prompt where nothing is said of them and the model has room.
const PROMPT_TOKENS: usize = 512;

/// The configuration in a folder or a file, and what to call the model.
pub fn read_config(path: &Path) -> Result<(ModelConfig, String)> {
    if path.is_dir() {
        return Ok((judged(path)?, name(path)));
    }
    ensure!(
        path.exists(),
        "{}: no such model folder or config.json{}",
        path.display(),
        folder_hint(path)
    );
    Ok((ModelConfig::read(path)?, name(path)))
}

/// The configuration of a folder. Weights need not be there; those that are must be the configuration's.
fn judged(dir: &Path) -> Result<ModelConfig> {
    let config = ModelConfig::load(dir)?;
    match Weights::open(dir) {
        Ok(weights) => drop(judge(&config, &weights)?),
        Err(WeightsError::NoWeights { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(config)
}

/// A file that has no name of its own is called by its folder's, a folder of the hub's cache by its model's.
fn name(path: &Path) -> String {
    if let Some(name) = ModelName::of_snapshot(path) {
        return name.to_string();
    }
    let nameless = path.file_name().is_some_and(|name| name == "config.json");
    let named = match nameless {
        true => path.parent().unwrap_or(path),
        false => path,
    };
    let named = named.canonicalize().unwrap_or(named.to_owned());
    let name = if named.is_dir() {
        named.file_name()
    } else {
        named.file_stem()
    };
    name.map_or("the model".into(), |name| name.to_string_lossy().into_owned())
}

/// What of a model its cost depends on.
pub fn network(config: &ModelConfig, name: String) -> Network {
    let linears = products(config, 1).into_iter().map(|product| Linear {
        name: product.name.to_owned(),
        n: product.shape.n,
        k: product.shape.k,
        count: product.num_linears,
        choice: product.choice,
        head: product.name == "head",
    });
    let positions = match config.position {
        Position::Learned { offset } => config.max_positions + offset,
        _ => 0,
    };
    Network {
        name,
        linears: linears.collect(),
        num_layers: config.num_layers,
        hidden_size: config.hidden_size,
        ffn_size: ffn_of_token(config),
        gated: matches!(config.ffn, FfnKind::Gated(_)),
        num_heads: config.num_heads,
        num_kv_heads: config.num_kv_heads,
        head_dim: config.head_dim,
        vocab_size: config.vocab_size,
        num_embeddings: config.vocab_size + positions,
        tie_embeddings: config.tie_embeddings,
        max_positions: config.max_positions,
        sliding_windows: config.sliding_windows.clone(),
    }
}

/// Channels of feed-forwards that a token goes through in a block, about: those of its experts count together.
fn ffn_of_token(config: &ModelConfig) -> usize {
    let of_experts = |layer| {
        let mixture = config.mixture_of(layer);
        mixture.map_or(0, |mixture| mixture.rule.num_chosen * mixture.expert_size)
    };
    let of_layer = |layer| config.ffn_size_of(layer) + of_experts(layer);
    (0..config.num_layers).map(of_layer).max().unwrap_or_default()
}

/// What was asked for, filled up with what the folder says.
pub fn request(options: &Options, config: &ModelConfig, machine: MachineKind) -> Workload {
    let quantization = config.quantization.as_ref();
    let scheme = linears(options.scheme);
    let asked_head = options.lm_head.map(head);
    let stored_head = quantization.map(|q| stored(q.scheme(config.family.head_name())));
    Workload {
        batches: options.batch.clone(),
        prompt_tokens: options.prompt.unwrap_or_else(|| {
            let left = config.max_positions.saturating_sub(options.generate);
            left.clamp(1, PROMPT_TOKENS)
        }),
        generate_tokens: options.generate,
        step_tokens: options.step_tokens.unwrap_or(match machine {
            MachineKind::Cpu => CPU_STEP_TOKENS,
            MachineKind::Gpu => CARD_STEP_TOKENS,
        }),
        scheme,
        head_scheme: asked_head.or(stored_head).unwrap_or(match scheme {
            Scheme::Bf16 => Scheme::Bf16,
            Scheme::W4a8 | Scheme::W8a8 => Scheme::W8a8,
        }),
        group_size: quantization.map_or(GROUP_SIZE, |q| q.group_size),
        kv_cache: cache(options.kv, quantization.map(|q| q.kv_cache), scheme),
    }
}

fn linears(scheme: CostScheme) -> Scheme {
    match scheme {
        CostScheme::W4a8 => Scheme::W4a8,
        CostScheme::W8a8 => Scheme::W8a8,
        CostScheme::Bf16 => Scheme::Bf16,
    }
}

fn head(head: LmHead) -> Scheme {
    match head {
        LmHead::Float => Scheme::Bf16,
        LmHead::Int8 => Scheme::W8a8,
        LmHead::W4a8 => Scheme::W4a8,
    }
}

fn stored(scheme: LinearScheme) -> Scheme {
    match scheme {
        LinearScheme::Float => Scheme::Bf16,
        LinearScheme::W8 => Scheme::W8a8,
        LinearScheme::W4 { .. } => Scheme::W4a8,
    }
}

fn cache(asked: Option<Kv>, stored: Option<CacheScheme>, scheme: Scheme) -> CacheFormat {
    let asked = asked.map(|kv| match kv {
        Kv::Int8 => CacheScheme::Int8,
        Kv::Int8Static => CacheScheme::Int8Static,
        Kv::F16 => CacheScheme::F16,
    });
    let usual = match scheme {
        Scheme::Bf16 => CacheScheme::F16,
        Scheme::W4a8 | Scheme::W8a8 => CacheScheme::Int8,
    };
    asked.or(stored).unwrap_or(usual).into()
}
