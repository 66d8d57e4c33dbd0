//! Which linear of a model.

use std::fmt;

/// The part a linear plays in its block, in order of execution.
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
    /// All of them, in order of execution.
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

/// Which linear of a model's blocks. Tensors that read the same input (q, k and v) are one linear. In ascending order
/// linears stand as a step runs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinearId {
    /// The block.
    pub layer: usize,
    /// The part it plays there.
    pub role: Role,
    /// Which expert it belongs to; `None` for a linear that every token takes.
    pub expert: Option<usize>,
}

impl LinearId {
    /// The linear of block `layer` that every token takes for `role`.
    pub fn dense(layer: usize, role: Role) -> Self {
        Self {
            layer,
            role,
            expert: None,
        }
    }
}

impl fmt::Display for LinearId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {}: {}", self.layer, self.role.name())?;
        match self.expert {
            Some(expert) => write!(f, " of expert {expert}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linears_sort_as_a_step_runs_them() {
        let id = |layer, role, expert| LinearId { layer, role, expert };
        let in_order = [
            id(0, Role::Qkv, None),
            id(0, Role::Out, None),
            id(0, Role::Up, Some(0)),
            id(0, Role::Up, Some(1)),
            id(0, Role::Down, Some(0)),
            id(1, Role::Qkv, None),
        ];
        assert!(in_order.is_sorted());
        assert_eq!(in_order[3].to_string(), "block 0: up of expert 1");
        assert_eq!(in_order[5].to_string(), "block 1: qkv");
    }
}
