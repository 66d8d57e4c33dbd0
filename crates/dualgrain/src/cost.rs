//! What `dualgrain-perf` must know of a model folder to price it: the sizes in config.json, and the usual way to run it.

use std::path::Path;

use dualgrain_device::CacheFormat;
use dualgrain_engine::{FfnKind, ModelConfig, Position, Weights, WeightsError, judge, products};
use dualgrain_format::{CacheScheme, GroupSize, LinearScheme};
use dualgrain_perf::cost::{Linear, Network, Scheme, Workload};
use dualgrain_perf::{MachineKind, Model, PerfError};

use crate::any_device::{CARD_STEP_TOKENS, CPU_STEP_TOKENS};
use crate::error::Error;

/// Weights that share a group scale where the folder does not say.
const GROUP_SIZE: GroupSize = GroupSize::Along(128);

/// Tokens of a prompt where nothing is said of them and the model has room.
const PROMPT_TOKENS: usize = 512;

/// The kind of CPU that the machine `cpu` means: the one that the project was measured on.
const CPU: &str = "xeon-amx";

/// The fitted model that comes with the program for a machine, `cpu` among them.
///
/// # Errors
/// There is none for the machine.
pub fn shipped(machine: &str) -> Result<Model, PerfError> {
    Model::shipped(if machine == "cpu" { CPU } else { machine })
}

/// What is to be priced, as far as a user says it; the folder and the machine say the rest.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// Batch sizes, each priced on its own.
    pub batches: Vec<usize>,
    /// Tokens of each prompt; `None` is 512, or what the model's positions leave beside the tokens to generate.
    pub prompt_tokens: Option<usize>,
    /// Tokens to generate for each sequence.
    pub generate_tokens: usize,
    /// Tokens a step of the prompts runs at most; `None` takes as many as models run with on the machine.
    pub step_tokens: Option<usize>,
    /// How the linears of the blocks are stored and multiplied.
    pub scheme: Scheme,
    /// The same for the output layer; `None` is as the folder says, else INT8, and float with float linears.
    pub head_scheme: Option<Scheme>,
    /// How keys and values are kept; `None` is as the folder says, else INT8, and f16 with float linears.
    pub kv_cache: Option<CacheScheme>,
}

/// The configuration of a folder. Weights need not be there; those that are must be the configuration's.
///
/// # Errors
/// A config.json that is missing, damaged or unsupported; tensors that do not belong to it.
pub fn config_of_folder(dir: &Path) -> Result<ModelConfig, Error> {
    let config = ModelConfig::load(dir)?;
    match Weights::open(dir) {
        Ok(weights) => drop(judge(&config, &weights)?),
        Err(WeightsError::NoWeights { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(config)
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
pub fn workload(asked: Asked, config: &ModelConfig, machine: MachineKind) -> Workload {
    let quantization = config.quantization.as_ref();
    let scheme = asked.scheme;
    let stored_head = quantization.map(|q| stored(q.scheme(config.family.head_name())));
    let usual_head = match scheme {
        Scheme::Bf16 => Scheme::Bf16,
        Scheme::W4a8 | Scheme::W8a8 => Scheme::W8a8,
    };
    let usual_cache = match scheme {
        Scheme::Bf16 => CacheScheme::F16,
        Scheme::W4a8 | Scheme::W8a8 => CacheScheme::Int8,
    };
    let cache = asked.kv_cache.or(quantization.map(|q| q.kv_cache));
    Workload {
        batches: asked.batches,
        prompt_tokens: asked.prompt_tokens.unwrap_or_else(|| {
            let left = config.max_positions.saturating_sub(asked.generate_tokens);
            left.clamp(1, PROMPT_TOKENS)
        }),
        generate_tokens: asked.generate_tokens,
        step_tokens: asked.step_tokens.unwrap_or(match machine {
            MachineKind::Cpu => CPU_STEP_TOKENS,
            MachineKind::Gpu => CARD_STEP_TOKENS,
        }),
        scheme,
        head_scheme: asked.head_scheme.or(stored_head).unwrap_or(usual_head),
        group_size: quantization.map_or(GROUP_SIZE, |q| q.group_size),
        kv_cache: CacheFormat::from(cache.unwrap_or(usual_cache)),
    }
}

fn stored(scheme: LinearScheme) -> Scheme {
    match scheme {
        LinearScheme::Float => Scheme::Bf16,
        LinearScheme::W8 => Scheme::W8a8,
        LinearScheme::W4 { .. } => Scheme::W4a8,
    }
}
