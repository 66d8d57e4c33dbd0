//! The file that names a GGUF file, and tensors in it that are not as folders have them.

/// The file of a folder that stands for a GGUF file; it says where that is.
pub const GGUF_POINTER: &str = "gguf.json";

/// Divisors of a rotary embedding's frequencies, which become part of the configuration.
pub const ROPE_FACTORS: &str = "rope_freqs.weight";

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
    fn queries_and_keys_of_a_llama_lie_in_pairs() {
        assert!(has_pairs("llama", "blk.0.attn_k.weight") && !has_pairs("qwen2", "blk.0.attn_k.weight"));
        assert!(!has_pairs("llama", "blk.0.attn_v.weight"));
    }
}
