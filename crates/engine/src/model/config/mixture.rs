//! The experts of a mixture, as the families write them.

use dualgrain_device::{MAX_EXPERTS, RoutingRule, RoutingScoring};
use dualgrain_format::K_MAX;

use super::architecture::{Family, MixtureConfig, ModelConfig, SharedExpert};
use super::error::ConfigError;
use super::fields::{Fields, field_error, unsupported};

impl MixtureConfig {
    /// Whether a gate weighs the shared expert; its logit stands behind those of the router.
    pub fn has_gate(&self) -> bool {
        self.shared.is_some_and(|shared| shared.gated)
    }
}

impl ModelConfig {
    /// The experts of a layer, if it has some.
    pub fn mixture_of(&self, layer: usize) -> Option<&MixtureConfig> {
        let is_sparse = |mixture: &&MixtureConfig| mixture.sparse_layers.get(layer) == Some(&true);
        self.mixture.as_ref().filter(is_sparse)
    }

    /// Width of the feed-forward that every token of a layer goes through: the only one, or that beside the experts; 0 where there is none.
    pub fn ffn_size_of(&self, layer: usize) -> usize {
        match self.mixture_of(layer) {
            None => self.ffn_size,
            Some(mixture) => mixture.shared.map_or(0, |shared| shared.size),
        }
    }

    /// Widths inside all kinds of feed-forward that the layers have.
    pub fn ffn_widths(&self) -> Vec<usize> {
        let Some(mixture) = &self.mixture else {
            return vec![self.ffn_size];
        };
        let dense = mixture.sparse_layers.contains(&false).then_some(self.ffn_size);
        let shared = mixture.shared.map(|shared| shared.size);
        dense
            .into_iter()
            .chain(shared)
            .chain([mixture.expert_size])
            .collect()
    }
}

pub(super) fn is_mixture(family: Family) -> bool {
    matches!(
        family,
        Family::Mixtral
            | Family::Qwen2Moe
            | Family::Qwen3Moe
            | Family::Olmoe
            | Family::Glm4Moe
            | Family::GptOss
    )
}

pub(super) fn read_mixture(config: &ModelConfig, fields: Fields<'_>) -> Result<MixtureConfig, ConfigError> {
    let usual = usual(config.family);
    let num_experts = fields.size(fields.spelling(&COUNTS), usual.num_experts, MAX_EXPERTS)?;
    let chosen_name = fields.spelling(&["num_experts_per_tok", "experts_per_token"]);
    let num_chosen = fields.size(chosen_name, usual.num_chosen, num_experts)?;
    let expert_size = match usual.expert_size {
        Some(size) => fields.size("moe_intermediate_size", size, K_MAX)?,
        None => config.ffn_size,
    };
    let is_glm = config.family == Family::Glm4Moe;
    if is_glm {
        refuse_groups(fields)?;
    }
    let normalized = match config.family {
        Family::Mixtral | Family::GptOss => true,
        family => fields.flag("norm_topk_prob", family == Family::Glm4Moe)?,
    };
    let scale = if is_glm {
        fields.positive("routed_scaling_factor", Some(1.0))?
    } else {
        1.0
    };
    Ok(MixtureConfig {
        num_experts,
        expert_size,
        rule: RoutingRule {
            num_chosen,
            scoring: if is_glm {
                RoutingScoring::Sigmoid
            } else {
                RoutingScoring::Softmax
            },
            normalized,
            scale: scale as f32,
        },
        has_selection_bias: is_glm,
        has_router_bias: config.family == Family::GptOss,
        shared: read_shared(config.family, fields, expert_size)?,
        sparse_layers: read_sparse_layers(config, fields)?,
    })
}

/// What families call the number of experts.
const COUNTS: [&str; 3] = ["num_experts", "num_local_experts", "n_routed_experts"];

/// What transformers assumes.
struct Usual {
    num_experts: usize,
    num_chosen: usize,
    /// `moe_intermediate_size`; without one, experts are as wide as `intermediate_size` says.
    expert_size: Option<usize>,
}

fn usual(family: Family) -> Usual {
    let (num_experts, num_chosen, expert_size) = match family {
        Family::Qwen2Moe => (60, 4, Some(1_408)),
        Family::Qwen3Moe => (128, 8, Some(768)),
        Family::Glm4Moe => (128, 8, Some(1_408)),
        Family::Olmoe => (64, 8, None),
        Family::GptOss => (128, 4, None),
        _ => (8, 2, None),
    };
    Usual {
        num_experts,
        num_chosen,
        expert_size,
    }
}

/// Experts that are first chosen by groups (DeepSeek) are others.
fn refuse_groups(fields: Fields<'_>) -> Result<(), ConfigError> {
    match fields.count("n_group")? {
        None | Some(0 | 1) => Ok(()),
        Some(groups) => Err(unsupported("n_group", groups, 1)),
    }
}

fn read_shared(
    family: Family,
    fields: Fields<'_>,
    expert_size: usize,
) -> Result<Option<SharedExpert>, ConfigError> {
    match family {
        Family::Qwen2Moe => {
            let size = fields.size("shared_expert_intermediate_size", 5_632, K_MAX)?;
            Ok(Some(SharedExpert { size, gated: true }))
        }
        Family::Glm4Moe => {
            let count = fields.count("n_shared_experts")?.unwrap_or(1);
            let size = count.checked_mul(expert_size).filter(|&size| size <= K_MAX);
            let too_many = || {
                field_error(
                    "n_shared_experts",
                    format!("at most {}", K_MAX / expert_size),
                    count,
                )
            };
            let size = size.ok_or_else(too_many)?;
            Ok((size > 0).then_some(SharedExpert { size, gated: false }))
        }
        _ => Ok(None),
    }
}

fn read_sparse_layers(config: &ModelConfig, fields: Fields<'_>) -> Result<Vec<bool>, ConfigError> {
    let layers = 0..config.num_layers;
    match config.family {
        Family::Qwen2Moe | Family::Qwen3Moe => {
            let step = fields.size("decoder_sparse_step", 1, usize::MAX)?;
            let dense = fields.counts("mlp_only_layers")?.unwrap_or_default();
            Ok(layers
                .map(|layer| (layer + 1).is_multiple_of(step) && !dense.contains(&layer))
                .collect())
        }
        Family::Glm4Moe => {
            let first = fields.count("first_k_dense_replace")?.unwrap_or(1);
            Ok(layers.map(|layer| layer >= first).collect())
        }
        _ => Ok(vec![true; config.num_layers]),
    }
}
