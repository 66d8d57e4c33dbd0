//! What tensors are called in a GGUF file.

use dualgrain_engine::Family;

/// Names of a block's parts: in a folder, behind the block's number, and in a file.
const PARTS: [(&str, &str); 11] = [
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// Names outside the blocks.
const OUTER: [(&str, &str); 3] = [
    ("model.embed_tokens", "token_embd"),
    ("model.norm", "output_norm"),
    ("lm_head", "output"),
];

/// The architecture of llama.cpp that runs a family; `None` where this export knows none.
pub fn architecture(family: Family) -> Option<&'static str> {
    match family {
        Family::Llama | Family::Mistral => Some("llama"),
        Family::Qwen2 => Some("qwen2"),
        Family::Qwen3 => Some("qwen3"),
        _ => None,
    }
}

/// The name in a file of the part `name` of a folder, without `.weight` or `.bias`.
pub fn part_name(name: &str) -> Option<String> {
    if let Some((_, file)) = OUTER.iter().find(|(folder, _)| *folder == name) {
        return Some((*file).to_owned());
    }
    let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    let (_, file) = PARTS.iter().find(|(folder, _)| *folder == part)?;
    Some(format!("blk.{layer}.{file}"))
}

/// The name in a file of the tensor `name` of a folder.
pub fn tensor_name(name: &str) -> Option<String> {
    let (part, end) = name.rsplit_once('.')?;
    matches!(end, "weight" | "bias").then_some(())?;
    Some(format!("{}.{end}", part_name(part)?))
}

/// What the rows of a part rotate as: `Some` for queries and keys.
pub fn is_rotated(part: &str) -> Option<Rotated> {
    if part.ends_with(".self_attn.q_proj") {
        return Some(Rotated::Queries);
    }
    part.ends_with(".self_attn.k_proj").then_some(Rotated::Keys)
}

/// Whose heads are rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotated {
    /// Query heads.
    Queries,
    /// Key heads.
    Keys,
}

/// The rows of a tensor in the order that the architecture `llama` rotates: neighbours in pairs, where folders have the two elements of a pair
/// half a head apart.
pub fn rows_in_pairs(num_heads: usize, head_dim: usize) -> Vec<usize> {
    let half = head_dim / 2;
    let of_head = |head: usize| (0..head_dim).map(move |row| head * head_dim + row % 2 * half + row / 2);
    (0..num_heads).flat_map(of_head).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_format() {
        for (folder, file) in [
            ("model.layers.12.self_attn.q_proj.weight", "blk.12.attn_q.weight"),
            ("model.layers.0.self_attn.k_proj.bias", "blk.0.attn_k.bias"),
            (
                "model.layers.3.post_attention_layernorm.weight",
                "blk.3.ffn_norm.weight",
            ),
            ("model.embed_tokens.weight", "token_embd.weight"),
            ("lm_head.weight", "output.weight"),
        ] {
            assert_eq!(tensor_name(folder).as_deref(), Some(file));
        }
        for unknown in [
            "model.layers.0.mlp.fc1.weight",
            "model.norm.scale",
            "x",
            "model.layers.a.mlp.up_proj.weight",
        ] {
            assert_eq!(tensor_name(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn halves_of_a_head_become_pairs() {
        assert_eq!(rows_in_pairs(2, 6), [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
    }
}
