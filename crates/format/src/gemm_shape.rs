//! The three sides of a matrix product.

use std::fmt;

/// Largest K for which `sum_k a8 * w8` fits i32: 127 * 127 * K < 2^31, and one bit to spare.
pub const K_MAX: usize = 131_071;

/// `D[M,N] = A[M,K] * B[N,K]^T`: M tokens, N output features, K the reduction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GemmShape {
    /// Tokens (rows of A and D).
    pub m: usize,
    /// Output features (rows of B, columns of D).
    pub n: usize,
    /// Reduction length (columns of A and B).
    pub k: usize,
}

impl fmt::Display for GemmShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.m, self.n, self.k)
    }
}
