//! One judgement of a model folder, for everything that opens one: whether its tensors are those that its configuration asks for.

use std::path::Path;

use dualgrain_format::{CacheScheme, KEY_SCALES_TENSOR, LinearScheme, VALUE_SCALES_TENSOR};

use crate::{BlockSpec, EngineError, MixtureSpec, ModelConfig, NormSpec, Position, Weights, WeightsError};

/// A folder whose configuration and tensors fit together.
#[derive(Debug)]
pub struct ModelFolder {
    /// What config.json says.
    pub config: ModelConfig,
    /// The mapped tensors.
    pub weights: Weights,
    /// What a person should know of the folder, a sentence each.
    pub notices: Vec<String>,
}

impl ModelFolder {
    /// Opens and judges the folder `dir`. Headers of files are read, and of tensors only those that must equal each other.
    ///
    /// # Errors
    /// What loading the model would refuse, but for values that are not finite or break the number format.
    pub fn open(dir: &Path) -> Result<Self, EngineError> {
        let config = ModelConfig::load(dir)?;
        let weights = Weights::open(dir)?;
        let notices = judge(&config, &weights)?;
        Ok(Self {
            config,
            weights,
            notices,
        })
    }
}

/// Refuses tensors that are missing, have another shape or type than `config` asks for, or belong to nothing; returns what a person
/// should know, a sentence each.
///
/// # Errors
/// See [`WeightsError`].
pub fn judge(config: &ModelConfig, weights: &Weights) -> Result<Vec<String>, WeightsError> {
    for layer in 0..config.num_layers {
        judge_block(&BlockSpec::new(config, layer), config, weights)?;
    }
    let hidden = config.hidden_size;
    let named = |name: &str| format!("{name}.weight");
    weights.expect_float(
        &named(config.family.embedding_name()),
        &[config.vocab_size, hidden],
    )?;
    if let Position::Learned { offset } = config.position {
        let positions = config.max_positions + offset;
        weights.expect_float(&named(config.family.positions_name()), &[positions, hidden])?;
    }
    for norm in config.embedding_norm().iter().chain([&config.final_norm()]) {
        judge_norm(norm, weights)?;
    }
    judge_head(config, weights)?;
    if config.quantization.as_ref().map(|q| q.kv_cache) == Some(CacheScheme::Int8Static) {
        weights.expect_float(KEY_SCALES_TENSOR, &[config.num_layers])?;
        weights.expect_float(VALUE_SCALES_TENSOR, &[config.num_layers])?;
    }
    let mut notices = config.notices.clone();
    notices.extend(weights.finish()?);
    Ok(notices)
}

fn judge_block(spec: &BlockSpec, config: &ModelConfig, weights: &Weights) -> Result<(), WeightsError> {
    let quantization = config.quantization.as_ref();
    for linear in spec.linears.values() {
        for member in &linear.members {
            let shape = (member.rows.len(), linear.k);
            weights.expect_linear(&member.name, shape, member.bias, quantization)?;
        }
    }
    spec.mixture
        .iter()
        .try_for_each(|mixture| judge_router(mixture, spec.hidden_size, weights))?;
    spec.sinks
        .iter()
        .try_for_each(|name| weights.expect_float(name, &[spec.num_heads]))?;
    spec.norms().try_for_each(|norm| judge_norm(norm, weights))
}

fn judge_router(mixture: &MixtureSpec, hidden_size: usize, weights: &Weights) -> Result<(), WeightsError> {
    for member in &mixture.router {
        weights.expect_linear(&member.name, (member.rows.len(), hidden_size), member.bias, None)?;
    }
    match &mixture.selection_bias {
        Some(name) => weights.expect_float(name, &[mixture.num_experts]),
        None => Ok(()),
    }
}

fn judge_norm(norm: &NormSpec, weights: &Weights) -> Result<(), WeightsError> {
    weights.expect_float(&format!("{}.weight", norm.name), &[norm.len])?;
    match norm.bias {
        true => weights.expect_float(&format!("{}.bias", norm.name), &[norm.len]),
        false => Ok(()),
    }
}

fn judge_head(config: &ModelConfig, weights: &Weights) -> Result<(), WeightsError> {
    let (head, embedding) = (config.family.head_name(), config.family.embedding_name());
    let quantization = config.quantization.as_ref();
    let scheme = quantization.map_or(LinearScheme::Float, |q| q.scheme(head));
    if config.tie_embeddings && scheme == LinearScheme::Float {
        return weights.check_tied_head(head, embedding).map(|_| ());
    }
    weights.expect_linear(head, (config.vocab_size, config.hidden_size), false, quantization)
}
