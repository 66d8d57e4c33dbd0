//! Experts of a mixture: a folder has a tensor for each, a file one for all of them.

use std::collections::HashMap;

use dualgrain_engine::{MixtureConfig, ModelConfig, RoutingRule, RoutingScoring};
use dualgrain_format::gguf::{self, GgufValue};

use crate::error::ExportError;
use crate::formats::ExportFormat;
use crate::gguf::rope::Settings;

/// What the parts of a mixture are called: in a folder, behind the block's number, and in a file.
const PARTS: [(&str, &str); 6] = [
    ("mlp.gate", "ffn_gate_inp"),
    ("block_sparse_moe.gate", "ffn_gate_inp"),
    ("mlp.shared_expert_gate", "ffn_gate_inp_shexp"),
    ("mlp.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_expert.up_proj", "ffn_up_shexp"),
    ("mlp.shared_expert.down_proj", "ffn_down_shexp"),
];

/// What the parts of an expert are called: in a folder, and those of all experts in a file.
const EXPERT_PARTS: [(&str, &str); 6] = [
    ("gate_proj", "ffn_gate_exps"),
    ("up_proj", "ffn_up_exps"),
    ("down_proj", "ffn_down_exps"),
    ("w1", "ffn_gate_exps"),
    ("w3", "ffn_up_exps"),
    ("w2", "ffn_down_exps"),
];

/// The name in a file of the part `name` of a mixture, without `.weight`.
fn mixture_part_name(name: &str) -> Option<String> {
    let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (_, file) = PARTS.iter().find(|(folder, _)| *folder == part)?;
    Some(format!("blk.{layer}.{file}"))
}

/// Whether a tensor of a file is what chooses or weighs experts; llama.cpp reads such a tensor as 32-bit floats alone.
pub fn chooses(file_part: &str) -> bool {
    file_part.contains(".ffn_gate_inp")
}

/// The name in a file of the tensor that holds this part of all experts, without `.weight`, and which expert it is; `None` for what is no part
/// of an expert.
fn place_in_stack(name: &str) -> Option<(String, usize)> {
    let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (_, of_expert) = part.split_once(".experts.")?;
    let (expert, part) = of_expert.split_once('.')?;
    let (_, file) = EXPERT_PARTS.iter().find(|(folder, _)| *folder == part)?;
    Some((format!("blk.{layer}.{file}"), expert.parse().ok()?))
}

/// Tensors of a folder that become one of a file: one by itself, or the same part of all experts, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack<'a, T> {
    /// Name in the file of what is stacked; `None` for a tensor by itself.
    pub name: Option<String>,
    /// The tensors, at least one.
    pub members: Vec<&'a T>,
}

impl<T> Stack<'_, T> {
    /// The name in the file, without `.weight` or `.bias`, where `part` is that of the first tensor in the folder; `None` for a part that no
    /// file has.
    pub fn part_name(&self, part: &str) -> Option<String> {
        let by_itself = || gguf::part_name(part).or_else(|| mixture_part_name(part));
        self.name.clone().or_else(by_itself)
    }
}

/// Brings the parts of experts together where the first of each part stands, ordered by expert. `name_of` gives a tensor's name without
/// `.weight`.
pub fn stacked<'a, T>(tensors: &'a [T], name_of: impl Fn(&'a T) -> &'a str) -> Vec<Stack<'a, T>> {
    let mut stacks: Vec<Stack<'a, T>> = Vec::new();
    let mut places = HashMap::new();
    let expert_of = |tensor: &'a T| place_in_stack(name_of(tensor)).map(|(_, expert)| expert);
    for tensor in tensors {
        let name = place_in_stack(name_of(tensor)).map(|(name, _)| name);
        let place = name
            .as_ref()
            .map(|name| *places.entry(name.clone()).or_insert(stacks.len()));
        match place.and_then(|place| stacks.get_mut(place)) {
            Some(stack) => stack.members.push(tensor),
            None => stacks.push(Stack {
                name,
                members: vec![tensor],
            }),
        }
    }
    // Folders list names as texts: expert 10 stands before expert 2.
    for stack in &mut stacks {
        stack.members.sort_by_key(|member| expert_of(member));
    }
    stacks
}

/// Refuses a stack whose experts are not all there, or not alike in what `kind_of` says of them.
///
/// # Errors
/// The stack's name, and what is missing.
pub fn check_stacks<'a, T, K: PartialEq>(
    stacks: &[Stack<'a, T>],
    config: &ModelConfig,
    kind_of: impl Fn(&T) -> Result<K, ExportError>,
) -> Result<(), ExportError> {
    let num_experts = config.mixture.as_ref().map_or(0, |mixture| mixture.num_experts);
    for stack in stacks {
        let Some(name) = &stack.name else { continue };
        let first = kind_of(stack.members[0])?;
        let mut are_alike = stack.members.len() == num_experts;
        for member in &stack.members {
            are_alike &= kind_of(member)? == first;
        }
        if !are_alike {
            return Err(ExportError::Unsupported {
                format: ExportFormat::Gguf,
                what: format!("`{name}` of experts that are stored in several ways"),
                expected: format!("all {num_experts} experts alike in shape and scheme"),
            });
        }
    }
    Ok(())
}

/// What the metadata says of a mixture, without the architecture in front.
///
/// # Errors
/// A mixture that llama.cpp's `architecture` computes otherwise.
pub fn settings(config: &ModelConfig, architecture: &str) -> Result<Settings, ExportError> {
    let Some(mixture) = &config.mixture else {
        return Ok(Settings::new());
    };
    check(mixture, architecture)?;
    let count = |count: usize| GgufValue::U32(count as u32);
    let mut settings = vec![
        ("expert_count", count(mixture.num_experts)),
        ("expert_used_count", count(mixture.rule.num_chosen)),
    ];
    if architecture != "llama" {
        settings.push(("expert_feed_forward_length", count(mixture.expert_size)));
    }
    if let Some(shared) = mixture.shared {
        settings.push(("expert_shared_feed_forward_length", count(shared.size)));
    }
    Ok(settings)
}

/// Weights of chosen experts are divided by their sum in some architectures and never in others.
fn check(mixture: &MixtureConfig, architecture: &str) -> Result<(), ExportError> {
    let RoutingRule {
        scoring,
        normalized,
        scale,
        ..
    } = mixture.rule;
    if scoring != RoutingScoring::Softmax || scale != 1.0 {
        return Err(unsupported(
            architecture,
            "a router by sigmoids or with a factor",
            "a softmax",
        ));
    }
    let divides = architecture != "qwen2moe";
    if normalized != divides {
        let (is, expected) = match divides {
            true => ("that are not divided by their sum", "norm_topk_prob true"),
            false => ("that are divided by their sum", "norm_topk_prob false"),
        };
        return Err(unsupported(
            architecture,
            &format!("expert weights {is}"),
            expected,
        ));
    }
    if !mixture.sparse_layers.iter().all(|&sparse| sparse) {
        return Err(unsupported(
            architecture,
            "blocks without experts among others",
            "experts in every block",
        ));
    }
    Ok(())
}

fn unsupported(architecture: &str, what: &str, expected: &str) -> ExportError {
    ExportError::Unsupported {
        format: ExportFormat::Gguf,
        what: format!("a {architecture} with {what}"),
        expected: expected.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_part_of_all_experts_becomes_one_tensor_where_the_first_stands() {
        let names = [
            "model.layers.0.self_attn.q_proj",
            "model.layers.0.mlp.experts.0.gate_proj",
            "model.layers.0.mlp.experts.0.up_proj",
            "model.layers.0.mlp.experts.10.gate_proj",
            "model.layers.0.mlp.experts.2.gate_proj",
            "model.layers.0.mlp.experts.1.up_proj",
            "model.layers.1.block_sparse_moe.experts.0.w2",
        ];
        let stacks = stacked(&names, |name| name);
        let found: Vec<(Option<&str>, usize)> = stacks
            .iter()
            .map(|stack| (stack.name.as_deref(), stack.members.len()))
            .collect();
        let expected = [
            (None, 1),
            (Some("blk.0.ffn_gate_exps"), 3),
            (Some("blk.0.ffn_up_exps"), 2),
            (Some("blk.1.ffn_down_exps"), 1),
        ];
        assert_eq!(found, expected);
        assert_eq!(
            stacks[1].members,
            [&names[1], &names[4], &names[3]],
            "by number, not by text"
        );
    }

    #[test]
    fn what_an_architecture_computes_otherwise_is_refused_by_name() {
        let config = |model_type: &str, more: &str| {
            let text = format!(
                r#"{{"model_type": "{model_type}", "num_hidden_layers": 2, "num_experts": 4, "num_experts_per_tok": 2{more}}}"#
            );
            ModelConfig::from_json(&text).unwrap()
        };
        let normalized = config("qwen3_moe", r#", "norm_topk_prob": true"#);
        assert!(settings(&normalized, "qwen3moe").is_ok());
        for (config, architecture, part) in [
            (
                config("qwen3_moe", r#", "norm_topk_prob": false"#),
                "qwen3moe",
                "norm_topk_prob true",
            ),
            (
                config("qwen2_moe", r#", "norm_topk_prob": true"#),
                "qwen2moe",
                "norm_topk_prob false",
            ),
            (
                config("qwen3_moe", r#", "norm_topk_prob": true, "mlp_only_layers": [0]"#),
                "qwen3moe",
                "experts in every block",
            ),
        ] {
            let error = settings(&config, architecture).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
