//! What is to be multiplied: a shape, the length of its groups, and what is written.

use dualgrain_format::{GemmShape, GroupSize};

use super::operands::BLOCK_K;

/// A product as the kernels see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GemmProblem {
    /// M tokens, N output features, K reduction.
    pub shape: GemmShape,
    /// Columns that share a group scale.
    pub group: GroupSize,
    /// What is written.
    pub output: Output,
}

impl GemmProblem {
    /// Blocks of the packed weights along K.
    pub fn k_blocks(&self) -> usize {
        self.shape.k.div_ceil(BLOCK_K)
    }
}

/// What a product writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Output {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// Brain floats.
    Bf16,
    /// The integer sums, for tests.
    Sums,
}

impl Output {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::Bf16, Self::Sums];

    /// Bytes of an element.
    pub fn size_bytes(self) -> usize {
        match self {
            Self::F32 | Self::Sums => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The number the kernels are compiled with.
    pub(crate) fn code(self) -> i64 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Bf16 => 2,
            Self::Sums => 3,
        }
    }
}
