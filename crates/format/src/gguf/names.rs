//! What the tensors of Llama and its kin are called in a GGUF file and in a model folder.

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

/// The name in a folder of a file's tensor; `None` for one that no folder has.
pub fn folder_name(tensor: &str) -> Option<String> {
    let (part, end) = tensor.rsplit_once('.')?;
    if !matches!(end, "weight" | "bias") {
        return None;
    }
    if let Some((folder, _)) = OUTER.iter().find(|(_, file)| *file == part) {
        return Some(format!("{folder}.{end}"));
    }
    let (layer, part) = part.strip_prefix("blk.")?.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    let (folder, _) = PARTS.iter().find(|(_, file)| *file == part)?;
    Some(format!("model.layers.{layer}.{folder}.{end}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_a_file_are_those_of_the_format() {
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
    }
}
