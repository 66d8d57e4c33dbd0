//! Where the smoothing scales of a linear's input go: what makes the input is divided by them.

use dualgrain_device::Activation;
use dualgrain_engine::{BlockSpec, FfnKind, Role};

use crate::transform::heads::{max_over_query_heads, repeat_for_query_heads};
use crate::transform::smoothing::Smoothing;

/// What makes the input of a linear, in reach of smoothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Producer {
    /// The norm before the linear.
    Norm,
    /// Rows of the linear `role` from `first_row` on, one a channel.
    Rows {
        /// The linear.
        role: Role,
        /// The row of channel 0.
        first_row: usize,
    },
    /// The rows of the values inside Qkv. Query heads of a group share a value head, and so its scales.
    ValueRows {
        /// The row of channel 0 of value head 0.
        first_row: usize,
        /// Query heads.
        num_heads: usize,
        /// Value heads.
        num_kv_heads: usize,
    },
}

impl Producer {
    /// What makes the input of `role`; `None` where scales do not pass the function between. Through a ReLU they do:
    /// f(c x) = c f(x) for c > 0. A transform mixes channels, so none pass it.
    pub fn of(role: Role, spec: &BlockSpec) -> Option<Self> {
        let up_rows = |first_row| Self::Rows {
            role: Role::Up,
            first_row,
        };
        match (role, spec.ffn) {
            // A router reads the norm too, and experts are as many as their scales would be.
            (Role::Up | Role::Down, _) if spec.mixture.is_some() => None,
            // A norm that both read can not take the scales of one.
            (Role::Qkv | Role::Up, _) if spec.shares_norm() => None,
            (Role::Qkv, _) => spec.attn_norm.as_ref().map(|_| Self::Norm),
            (Role::Up, _) => spec.ffn_norm.as_ref().map(|_| Self::Norm),
            (Role::Out, _) => Some(Self::ValueRows {
                first_row: spec.q_size() + spec.kv_size(),
                num_heads: spec.num_heads,
                num_kv_heads: spec.num_kv_heads,
            }),
            (Role::Down, _) if spec.hadamard_down.is_some() => None,
            // Its other factor is cut, and one is added.
            (Role::Down, FfnKind::Gated(Activation::Clamped(_))) => None,
            (Role::Down, FfnKind::Gated(_)) => Some(up_rows(spec.ffn_size)),
            (Role::Down, FfnKind::Plain(Activation::Relu)) => Some(up_rows(0)),
            (Role::Down, FfnKind::Plain(_)) => None,
        }
    }

    /// Scales of the input's channels `[K]` from their maxima and those of the weights' columns.
    pub fn input_scales(self, smoothing: Smoothing, maxima: &[f32], column_maxima: &[f32]) -> Vec<f32> {
        match self {
            Self::Norm | Self::Rows { .. } => smoothing.scales(maxima, column_maxima),
            Self::ValueRows {
                num_heads,
                num_kv_heads,
                ..
            } => {
                let shared = |maxima| max_over_query_heads(maxima, num_heads, num_kv_heads);
                let scales = smoothing.scales(&shared(maxima), &shared(column_maxima));
                repeat_for_query_heads(&scales, num_heads, num_kv_heads)
            }
        }
    }

    /// What the producer's own channels are divided by, from [`Self::input_scales`].
    pub fn own_scales(self, input_scales: &[f32]) -> Vec<f32> {
        match self {
            Self::Norm | Self::Rows { .. } => input_scales.to_vec(),
            Self::ValueRows {
                num_heads,
                num_kv_heads,
                ..
            } => max_over_query_heads(input_scales, num_heads, num_kv_heads),
        }
    }
}
