//! Names of tensors as checkpoints store them: what wrappers put in front, and what a language model does not need.

/// Leading parts of tensor names that checkpoints of the bare model leave out.
pub const LEADING: [&str; 3] = ["model.", "transformer.", "gpt_neox."];

/// Parts that compilers, trainers and wrappers of several modalities put into names; no tensor of a model is called so.
const WRAPPERS: [&str; 5] = [
    "_orig_mod",
    "module",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "language_model",
];

/// What adapters put in front of every name.
const ADAPTER: &str = "base_model.model.";

/// The name of a tensor without what wrappers add to it.
pub(super) fn unwrapped(stored: &str) -> String {
    let mut name = stored.to_owned();
    loop {
        let parts = name.split('.').filter(|part| !WRAPPERS.contains(part));
        let mut shorter = parts.collect::<Vec<_>>().join(".");
        if let Some(rest) = shorter.strip_prefix(ADAPTER) {
            shorter = rest.to_owned();
        }
        if shorter == name || shorter.is_empty() {
            return with_usual_head(name);
        }
        name = shorter;
    }
}

/// GPT-NeoX's files call the head otherwise, and transformers 5 as those of all other families do.
fn with_usual_head(name: String) -> String {
    match name.strip_prefix("embed_out.") {
        Some(rest) => format!("lm_head.{rest}"),
        None => name,
    }
}

/// Tensors that other programs leave beside a model's own and that its text does not depend on; the rest of a name tells which.
const UNNEEDED_ENDS: [&str; 13] = [
    ".rotary_emb.inv_freq",
    ".attention.bias",
    ".rotary_emb.cos_cached",
    ".rotary_emb.sin_cached",
    ".masked_bias",
    ".position_ids",
    ".k_scale",
    ".v_scale",
    ".kv_scale",
    ".q_scale",
    ".prob_scale",
    ".output_scale",
    ".lora_magnitude_vector",
];
const UNNEEDED_PARTS: [&str; 6] = [
    "lora_A",
    "lora_B",
    "lora_embedding_A",
    "lora_embedding_B",
    "original_module",
    "lora_dropout",
];
const UNNEEDED_STARTS: [&str; 11] = [
    "v_head",
    "value_head",
    "score",
    "reward_head",
    "classifier",
    "vision_tower",
    "vision_model",
    "multi_modal_projector",
    "visual",
    "audio_tower",
    "mtp",
];

/// Whether a tensor that the model did not ask for may be left out.
pub(super) fn is_unneeded(name: &str) -> bool {
    let bare = LEADING.iter().find_map(|leading| name.strip_prefix(leading));
    let first = bare.unwrap_or(name).split('.').next().unwrap_or_default();
    UNNEEDED_ENDS.iter().any(|end| name.ends_with(end))
        || name.split('.').any(|part| UNNEEDED_PARTS.contains(&part))
        || UNNEEDED_STARTS.contains(&first)
}

/// Whether names show an adapter that was not merged into its model.
pub(super) fn is_of_adapter(name: &str) -> bool {
    name.split('.')
        .any(|part| part == "base_layer" || part.starts_with("lora_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_leave_names_wherever_they_stand() {
        for (stored, name) in [
            ("_orig_mod.model.norm.weight", "model.norm.weight"),
            ("module.model.norm.weight", "model.norm.weight"),
            ("module._orig_mod.lm_head.weight", "lm_head.weight"),
            ("base_model.model.model.norm.weight", "model.norm.weight"),
            ("module.base_model.model.lm_head.weight", "lm_head.weight"),
            ("language_model.model.norm.weight", "model.norm.weight"),
            ("model.language_model.norm.weight", "model.norm.weight"),
            (
                "model.layers.3._orig_mod.mlp.up_proj.weight",
                "model.layers.3.mlp.up_proj.weight",
            ),
            (
                "_fsdp_wrapped_module.model.layers.0._fsdp_wrapped_module.fc1.bias",
                "model.layers.0.fc1.bias",
            ),
            ("model.norm.weight", "model.norm.weight"),
            ("module", "module"),
            ("embed_out.weight", "lm_head.weight"),
            ("base_model.model", "base_model.model"),
        ] {
            assert_eq!(unwrapped(stored), name, "{stored}");
        }
    }

    #[test]
    fn leftovers_are_known_and_weights_are_not_among_them() {
        for name in [
            "model.layers.0.self_attn.rotary_emb.inv_freq",
            "model.layers.0.self_attn.q_proj.lora_A.default.weight",
            "v_head.summary.weight",
            "score.weight",
            "model.layers.1.self_attn.k_scale",
            "model.layers.1.self_attn.k_proj.output_scale",
            "model.visual.blocks.0.weight",
        ] {
            assert!(is_unneeded(name), "{name}");
        }
        for name in [
            "model.layers.0.self_attn.o_proj.bias",
            "model.layers.9.mlp.up_proj.weight",
            "model.layers.0.mlp.up_proj.weight_scale",
            "lm_head.weight",
            "model.embed_tokens.weight",
        ] {
            assert!(!is_unneeded(name), "{name}");
        }
        assert!(is_of_adapter("model.layers.0.self_attn.q_proj.base_layer.weight"));
    }
}
