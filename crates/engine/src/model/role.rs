//! Which linear of a block.

/// Which of a block's four linears, in order of execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Queries, keys and values, joined as [q|k|v].
    Qkv,
    /// The attention's output projection.
    Out,
    /// Gate and up, joined as [gate|up]; or fc1.
    Up,
    /// down, or fc2.
    Down,
}

impl Role {
    /// All four, in order of execution.
    pub const ALL: [Self; 4] = [Self::Qkv, Self::Out, Self::Up, Self::Down];

    /// `qkv`, `out`, `up` or `down`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qkv => "qkv",
            Self::Out => "out",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}
