//! The linears of a block, loaded joined and written back split.

use dualgrain_format::{FloatLinear, FloatValues, FormatError, LinearWeights, QuantizationConfig};

use crate::{EngineError, LinearSpec, Member, MixtureSpec, Weights, WeightsError};

/// A joined linear and the checkpoint tensors it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct JoinedLinear {
    /// The joined matrix [n, k] with its bias.
    pub weights: LinearWeights,
    /// Where each checkpoint tensor's rows went.
    pub members: Vec<Member>,
}

/// Loads a linear in the scheme the folder stores it (`quantization` from its config).
///
/// # Errors
/// A missing, misshapen or non-finite tensor; members in different schemes.
pub fn load_linear(
    weights: &Weights,
    spec: &LinearSpec,
    quantization: Option<&QuantizationConfig>,
) -> Result<JoinedLinear, EngineError> {
    let parts = spec.members.iter().map(|member| {
        let shape = (member.rows.len(), spec.k);
        weights.linear(&member.name, shape, member.bias, quantization)
    });
    let parts = parts.collect::<Result<Vec<_>, _>>()?;
    let joined = LinearWeights::join(parts).and_then(|joined| in_joined_order(joined, &spec.members));
    let joined = joined.map_err(|source| WeightsError::Linear {
        dir: weights.dir().to_owned(),
        name: spec.id.to_string(),
        source,
    });
    Ok(JoinedLinear {
        weights: joined?,
        members: spec.members.clone(),
    })
}

/// Loads a linear of an unquantized folder as f32 [`dualgrain_format::FloatLinear`], whatever float type is stored.
///
/// # Errors
/// A missing, misshapen or non-finite tensor.
pub fn load_linear_float(weights: &Weights, spec: &LinearSpec) -> Result<JoinedLinear, EngineError> {
    let linear = load_members(weights, (spec.n, spec.k), &spec.members)?;
    Ok(JoinedLinear {
        weights: LinearWeights::Float(linear),
        members: spec.members.clone(),
    })
}

/// Loads the router of a mixture, `[num_experts, hidden]` and behind it the gate of the shared expert.
///
/// # Errors
/// A missing, misshapen or non-finite tensor.
pub fn load_router(
    weights: &Weights,
    spec: &MixtureSpec,
    hidden_size: usize,
) -> Result<LinearWeights, EngineError> {
    let linear = load_members(weights, (spec.num_logits(), hidden_size), &spec.router)?;
    Ok(LinearWeights::Float(linear))
}

/// Tensors of floats joined along N.
fn load_members(
    weights: &Weights,
    (n, k): (usize, usize),
    members: &[Member],
) -> Result<FloatLinear, EngineError> {
    let mut matrix = vec![0.0; n * k];
    let mut bias = members.iter().any(|member| member.bias).then(|| vec![0.0; n]);
    for Member {
        name,
        rows,
        bias: has_bias,
    } in members
    {
        weights.f32_scatter(&format!("{name}.weight"), k, rows, &mut matrix)?;
        if let (Some(bias), true) = (&mut bias, *has_bias) {
            let values = weights.f32(&format!("{name}.bias"), &[rows.len()])?;
            rows.iter()
                .zip(values)
                .for_each(|(&row, value)| bias[row] = value);
        }
    }
    Ok(FloatLinear::new(n, k, FloatValues::F32(matrix), bias)?)
}

/// From the members' rows one after the other to the order of the joined matrix.
fn in_joined_order(joined: LinearWeights, members: &[Member]) -> Result<LinearWeights, FormatError> {
    let order = members.iter().flat_map(|member| member.rows.iter().copied());
    if order.clone().eq(0..joined.n()) {
        return Ok(joined);
    }
    let mut source = vec![0; joined.n()];
    order.enumerate().for_each(|(row, place)| source[place] = row);
    joined.select_rows(&source)
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
