//! What rows are before they are quantized.

/// What happens to a row before it is quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Before {
    /// Nothing.
    Nothing,
    /// RMSNorm.
    RmsNorm,
    /// `silu(x[c]) * x[K + c]`: rows of the input hold 2 K.
    SwiGlu,
    /// `x += y`, which stays, then RMSNorm. x is f32; the input that a type is named for is y, f32 or bf16.
    AddRmsNorm,
}

impl Before {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Nothing, Self::RmsNorm, Self::SwiGlu, Self::AddRmsNorm];

    /// Whether it exists for a type of input.
    pub fn takes(self, input: Input) -> bool {
        self != Self::AddRmsNorm || input != Input::F16
    }

    pub(super) fn code(self) -> i64 {
        match self {
            Self::Nothing => 0,
            Self::RmsNorm => 1,
            Self::SwiGlu => 2,
            Self::AddRmsNorm => 3,
        }
    }

    pub(super) fn norms(self) -> bool {
        matches!(self, Self::RmsNorm | Self::AddRmsNorm)
    }

    /// Columns of the input for `k` codes.
    pub fn input_columns(self, k: usize) -> usize {
        match self {
            Self::SwiGlu => 2 * k,
            Self::Nothing | Self::RmsNorm | Self::AddRmsNorm => k,
        }
    }
}

/// Type of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Input {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// Brain floats.
    Bf16,
}

impl Input {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    pub(super) fn code(self) -> i64 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Bf16 => 2,
        }
    }

    pub(super) fn size_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}
