//! Model families as data: one description of a block, one forward for all (block.rs).

use dualgrain_kernels::AttentionParams;

use crate::{FfnKind, ModelConfig, NormKind, Role};

/// One block: what its tensors are called and what happens between them.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockSpec {
    /// Index of the block.
    pub layer: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key/value heads.
    pub num_kv_heads: usize,
    /// Width inside the feed-forward.
    pub ffn_size: usize,
    /// Norm before attention.
    pub attn_norm: NormSpec,
    /// Norm before the feed-forward.
    pub ffn_norm: NormSpec,
    /// RMS norms of query heads and of key heads.
    pub qk_norm: Option<[NormSpec; 2]>,
    /// Queries and keys are rotated.
    pub rope: bool,
    /// Kind of feed-forward.
    pub ffn: FfnKind,
    /// Scale, window and slopes of the attention.
    pub attention: AttentionParams,
    /// The four linears, indexed by [`Role`].
    pub roles: [RoleSpec; 4],
}

/// A norm's tensors: `name.weight`, and `name.bias` for [`NormKind::Layer`].
#[derive(Debug, Clone, PartialEq)]
pub struct NormSpec {
    /// Tensor name without `.weight`.
    pub name: String,
    /// Kind.
    pub kind: NormKind,
    /// Elements.
    pub len: usize,
    /// Epsilon.
    pub eps: f32,
}

/// One of a block's four linears: a matrix joined along N from one or more tensors of the checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct RoleSpec {
    /// Which linear.
    pub role: Role,
    /// Output features of the joined matrix.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// Tensors that make it up; their rows partition 0..n.
    pub members: Vec<Member>,
}

/// A tensor of the checkpoint and where its rows lie in the joined matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Tensor name without `.weight`, e.g. `model.layers.0.self_attn.q_proj`.
    pub name: String,
    /// Row i of the tensor is row `rows[i]` of the joined matrix.
    pub rows: Vec<usize>,
    /// Whether `name.bias` exists.
    pub bias: bool,
}

impl BlockSpec {
    /// The description of block `layer`.
    pub fn new(config: &ModelConfig, layer: usize) -> Self {
        let _ = (config, layer);
        todo!()
    }

    /// One of the four linears.
    pub fn role(&self, role: Role) -> &RoleSpec {
        &self.roles[role as usize]
    }
}
