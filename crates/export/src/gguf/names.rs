//! Which models a GGUF file can hold, and in what order its rows lie.

use dualgrain_engine::Family;

/// The architecture of llama.cpp that runs a family; `None` where this export knows none.
pub fn architecture(family: Family) -> Option<&'static str> {
    match family {
        Family::Llama | Family::Mistral | Family::Mixtral => Some("llama"),
        Family::Qwen2 => Some("qwen2"),
        Family::Qwen2Moe => Some("qwen2moe"),
        Family::Qwen3 => Some("qwen3"),
        Family::Qwen3Moe => Some("qwen3moe"),
        _ => None,
    }
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
    fn halves_of_a_head_become_pairs() {
        assert_eq!(rows_in_pairs(2, 6), [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
    }
}
