//! How many multiply-adds the passes over the calibration windows take: for progress and the plan. The unit is a
//! multiply-add of floats.

use dualgrain_engine::{BlockSpec, Role};

/// An integer product takes about a fourth of the time of a float product.
const INT8_SPEEDUP: u64 = 4;

/// Multiply-adds of the passes of a block, for one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassMultiplyAdds {
    /// One run of each linear, indexed by [`Role`].
    pub linear: [u64; 4],
    /// Accumulating the Gram matrix of each linear's input.
    pub gram: [u64; 4],
    /// Attention.
    pub attention: u64,
}

impl PassMultiplyAdds {
    /// Those of `spec` on a window of `tokens`.
    pub fn new(spec: &BlockSpec, tokens: usize) -> Self {
        let shape = Role::ALL.map(|role| (spec.role(role).n as u64, spec.role(role).k as u64));
        Self {
            linear: shape.map(|(n, k)| tokens as u64 * n * k / INT8_SPEEDUP),
            gram: shape.map(|(_, k)| gram_multiply_adds(tokens, k as usize)),
            attention: (tokens * tokens * spec.num_heads * spec.head_dim) as u64,
        }
    }

    /// All passes: qkv and up run twice, the others once.
    pub fn total(&self) -> u64 {
        let [qkv, out, up, down] = self.linear;
        qkv + out + 2 * up + down + self.gram.iter().sum::<u64>() + self.attention
    }
}

/// Accumulating the lower triangle of a Gram matrix `[K,K]`.
pub fn gram_multiply_adds(tokens: usize, k: usize) -> u64 {
    (tokens * k) as u64 * k as u64 / 2
}
