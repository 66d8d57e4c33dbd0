//! What the tensors of a GGUF file are called in a model folder.

/// Names of a block's parts in a file and in a folder, behind the block's number.
const PARTS: [(&str, &str); 11] = [
    ("attn_norm", "input_layernorm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Names outside the blocks.
const OUTER: [(&str, &str); 3] = [
    ("token_embd", "model.embed_tokens"),
    ("output_norm", "model.norm"),
    ("output", "lm_head"),
];

/// The file of a folder that stands for a GGUF file; it says where that is.
pub const GGUF_POINTER: &str = "gguf.json";

/// Divisors of a rotary embedding's frequencies, which become part of the configuration.
pub const ROPE_FACTORS: &str = "rope_freqs.weight";

/// The name in a folder of a file's tensor; `None` for one that no folder has.
pub fn folder_name(tensor: &str) -> Option<String> {
    let (part, end) = tensor.rsplit_once('.')?;
    if !matches!(end, "weight" | "bias") {
        return None;
    }
    if let Some((_, folder)) = OUTER.iter().find(|(file, _)| *file == part) {
        return Some(format!("{folder}.{end}"));
    }
    let (layer, part) = part.strip_prefix("blk.")?.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    let (_, folder) = PARTS.iter().find(|(file, _)| *file == part)?;
    Some(format!("model.layers.{layer}.{folder}.{end}"))
}

/// Whether the architecture `llama` has the rows of a tensor in pairs: neighbours are rotated together, where folders have them half a
/// head apart.
pub fn has_pairs(architecture: &str, tensor: &str) -> bool {
    let part = tensor.rsplit_once('.').map_or(tensor, |(part, _)| part);
    architecture == "llama" && (part.ends_with(".attn_q") || part.ends_with(".attn_k"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_folders() {
        for (file, folder) in [
            ("blk.12.attn_q.weight", "model.layers.12.self_attn.q_proj.weight"),
            ("blk.0.attn_k.bias", "model.layers.0.self_attn.k_proj.bias"),
            (
                "blk.3.ffn_norm.weight",
                "model.layers.3.post_attention_layernorm.weight",
            ),
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("output.weight", "lm_head.weight"),
        ] {
            assert_eq!(folder_name(file).as_deref(), Some(folder));
        }
        for unknown in [
            "blk.0.ffn_gate_exps.weight",
            "blk.x.attn_q.weight",
            "output_norm.scale",
            "v",
        ] {
            assert_eq!(folder_name(unknown), None, "{unknown}");
        }
        assert!(has_pairs("llama", "blk.0.attn_k.weight") && !has_pairs("qwen2", "blk.0.attn_k.weight"));
        assert!(!has_pairs("llama", "blk.0.attn_v.weight"));
    }
}
