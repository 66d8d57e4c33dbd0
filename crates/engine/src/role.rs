//! The four linears of a block, loaded joined and written back split.

use dualgrain_format::{FormatError, LinearWeights, QuantizationConfig};

use crate::{BlockSpec, EngineError, Member, Weights};

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
}

/// A joined linear and the checkpoint tensors it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct JoinedLinear {
    /// The joined matrix [n, k] with its bias.
    pub weights: LinearWeights,
    /// Where each checkpoint tensor's rows went.
    pub members: Vec<Member>,
}

/// Loads one role of a block in the scheme the folder stores it (`quantization` from its config).
///
/// # Errors
/// A missing, misshapen or non-finite tensor; members in different schemes.
pub fn load_role(
    weights: &Weights,
    block: &BlockSpec,
    role: Role,
    quantization: Option<&QuantizationConfig>,
) -> Result<JoinedLinear, EngineError> {
    let _ = (weights, block, role, quantization);
    todo!()
}

/// Loads one role of an unquantized folder as f32 [`dualgrain_format::FloatLinear`], whatever float type is stored.
///
/// # Errors
/// A missing, misshapen or non-finite tensor.
pub fn load_role_float(
    weights: &Weights,
    block: &BlockSpec,
    role: Role,
) -> Result<JoinedLinear, EngineError> {
    let _ = (weights, block, role);
    todo!()
}

/// The checkpoint's linears inside a joined one, in the checkpoint's row order: what is written under `member.name`.
///
/// # Errors
/// Members whose rows do not fit the matrix.
pub fn split_members(
    joined: &LinearWeights,
    members: &[Member],
) -> Result<Vec<(String, LinearWeights)>, FormatError> {
    members
        .iter()
        .map(|member| Ok((member.name.clone(), joined.select_rows(&member.rows)?)))
        .collect()
}
