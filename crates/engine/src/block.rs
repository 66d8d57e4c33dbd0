//! One block of any family, in steps that a quantizer can run one by one.
//!
//! ```text
//! attn_norm   scratch.h   = norm(x)                       input of Qkv
//! qkv         scratch.qkv = rope(qk_norm(Qkv(h)))         [q|k|v]
//! attention   scratch.c   = attention over the cache      input of Out
//! add_out     x += Out(c)
//! ffn_norm    scratch.h   = norm(x)                       input of Up
//! ffn_inner   scratch.f   = f(Up(h))                      input of Down
//! add_down    x += Down(f)
//! ```

use dualgrain_format::LinearWeights;
use dualgrain_kernels::{ActivationScale, Backend, Step};

use crate::{BlockSpec, EngineError, FfnKind, ModelConfig, NormSpec, Role, Weights};

/// A packed linear with the way its input is quantized.
pub struct Projection<B: Backend> {
    /// Packed weights [n,k].
    pub linear: B::Linear,
    /// How the input becomes INT8; `None` for float weights.
    pub activations: Option<ActivationScale>,
}

/// A norm's parameters on the device.
pub struct Norm<B: Backend> {
    spec: NormSpec,
    weight: B::Matrix,
    bias: Option<B::Matrix>,
}

/// What follows attention in a block.
#[non_exhaustive]
pub enum FeedForward<B: Backend> {
    /// One feed-forward for every token.
    Dense {
        /// Gate and up joined, or fc1.
        up: Projection<B>,
        /// Gated or plain, with its activation function.
        kind: FfnKind,
        /// down, or fc2.
        down: Projection<B>,
    },
}

/// A block ready to run.
pub struct Block<B: Backend> {
    spec: BlockSpec,
    attn_norm: Norm<B>,
    qkv: Projection<B>,
    qk_norm: Option<[Norm<B>; 2]>,
    out: Projection<B>,
    ffn_norm: Norm<B>,
    feed_forward: FeedForward<B>,
}

/// Buffers of a step, shared by all blocks; nothing is allocated while steps fit `capacity`.
pub struct Scratch<B: Backend> {
    /// Output of a norm [M, hidden].
    pub h: B::Matrix,
    /// Queries, keys, values [M, q + k + v].
    pub qkv: B::Matrix,
    /// Attention output [M, num_heads * head_dim].
    pub c: B::Matrix,
    /// Gate and up [M, 2 * ffn]; not used by plain feed-forwards.
    pub up: B::Matrix,
    /// Input of the last linear [M, ffn].
    pub f: B::Matrix,
    /// Output of Out and Down [M, hidden].
    pub y: B::Matrix,
    /// Rotary angles of the step [M, head_dim] (cos | sin); see [`Scratch::prepare`].
    pub angles: B::Matrix,
    h8: B::Quantized,
    c8: B::Quantized,
    f8: B::Quantized,
}

impl<B: Backend> Projection<B> {
    /// Packs a linear; integer weights take INT8 inputs with their static scale, or one per token.
    ///
    /// # Errors
    /// A shape the device cannot hold.
    pub fn new(backend: &B, weights: LinearWeights) -> Result<Self, EngineError> {
        let _ = (backend, weights);
        todo!()
    }

    /// `out = linear(x)`, through `a8` when the weights are integers.
    pub fn apply(&self, backend: &B, out: &mut B::Matrix, x: &B::Matrix, a8: &mut B::Quantized) {
        let _ = (backend, out, x, a8);
        todo!()
    }
}

impl<B: Backend> Norm<B> {
    /// Loads a norm's tensors.
    ///
    /// # Errors
    /// A missing, misshapen or non-finite tensor.
    pub fn load(backend: &B, weights: &Weights, spec: &NormSpec) -> Result<Self, EngineError> {
        let _ = (backend, weights, spec);
        todo!()
    }

    /// A norm from host values (after smoothing was folded in). `bias` is needed by [`crate::NormKind::Layer`] only.
    pub fn new(backend: &B, spec: &NormSpec, weight: &[f32], bias: Option<&[f32]>) -> Self {
        let _ = (backend, spec, weight, bias);
        todo!()
    }

    /// `out = norm(x)`.
    pub fn apply(&self, backend: &B, out: &mut B::Matrix, x: &B::Matrix) {
        let _ = (backend, out, x, &self.spec, &self.weight, &self.bias);
        todo!()
    }
}

impl<B: Backend> Scratch<B> {
    /// Buffers for steps of up to `capacity` tokens.
    pub fn new(backend: &B, config: &ModelConfig, capacity: usize) -> Self {
        let _ = (backend, config, capacity);
        todo!()
    }

    /// Computes the rotary angles of a step; once per step, before the first block.
    pub fn prepare(&mut self, backend: &B, positions: &[u32]) {
        let _ = (backend, positions);
        todo!()
    }
}

impl<B: Backend> Block<B> {
    /// Loads block `spec` in the schemes its folder stores.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub fn load(
        backend: &B,
        weights: &Weights,
        config: &ModelConfig,
        layer: usize,
    ) -> Result<Self, EngineError> {
        let _ = (backend, weights, config, layer);
        todo!()
    }

    /// The block's description.
    pub fn spec(&self) -> &BlockSpec {
        &self.spec
    }

    /// Replaces one linear, e.g. by its quantized form.
    pub fn set_projection(&mut self, role: Role, projection: Projection<B>) {
        let _ = (role, projection);
        todo!()
    }

    /// One linear.
    pub fn projection(&self, role: Role) -> &Projection<B> {
        let _ = (role, &self.feed_forward);
        todo!()
    }

    /// Replaces the norm before attention (smoothing folds its scales there).
    pub fn set_attn_norm(&mut self, norm: Norm<B>) {
        self.attn_norm = norm;
    }

    /// Replaces the norm before the feed-forward.
    pub fn set_ffn_norm(&mut self, norm: Norm<B>) {
        self.ffn_norm = norm;
    }

    /// The whole block: `x` [M, hidden] is updated, keys and values of the step go to `layer` of the cache.
    pub fn forward(
        &self,
        backend: &B,
        x: &mut B::Matrix,
        scratch: &mut Scratch<B>,
        cache: &mut B::Cache,
        cache_layer: usize,
        step: &Step<'_>,
    ) {
        self.attn_norm(backend, x, scratch);
        self.qkv(backend, scratch);
        self.attention(backend, scratch, cache, cache_layer, step);
        self.add_out(backend, x, scratch);
        self.ffn_norm(backend, x, scratch);
        self.ffn_inner(backend, scratch);
        self.add_down(backend, x, scratch);
    }

    /// `scratch.h = norm(x)`: the input of [`Role::Qkv`].
    pub fn attn_norm(&self, backend: &B, x: &B::Matrix, scratch: &mut Scratch<B>) {
        self.attn_norm.apply(backend, &mut scratch.h, x);
    }

    /// `scratch.qkv` from `scratch.h`, with q/k norm and rope applied.
    pub fn qkv(&self, backend: &B, scratch: &mut Scratch<B>) {
        let _ = (backend, scratch, &self.qkv, &self.qk_norm);
        todo!()
    }

    /// Writes keys and values of `scratch.qkv` to the cache and attends: `scratch.c`, the input of [`Role::Out`].
    pub fn attention(
        &self,
        backend: &B,
        scratch: &mut Scratch<B>,
        cache: &mut B::Cache,
        cache_layer: usize,
        step: &Step<'_>,
    ) {
        let _ = (backend, scratch, cache, cache_layer, step);
        todo!()
    }

    /// `x += Out(scratch.c)`.
    pub fn add_out(&self, backend: &B, x: &mut B::Matrix, scratch: &mut Scratch<B>) {
        let _ = (backend, x, &scratch.c8, &self.out);
        todo!()
    }

    /// `scratch.h = norm(x)`: the input of [`Role::Up`].
    pub fn ffn_norm(&self, backend: &B, x: &B::Matrix, scratch: &mut Scratch<B>) {
        self.ffn_norm.apply(backend, &mut scratch.h, x);
    }

    /// `scratch.f` from `scratch.h`, activation applied: the input of [`Role::Down`].
    pub fn ffn_inner(&self, backend: &B, scratch: &mut Scratch<B>) {
        let _ = (backend, &scratch.h8);
        todo!()
    }

    /// `x += Down(scratch.f)`.
    pub fn add_down(&self, backend: &B, x: &mut B::Matrix, scratch: &mut Scratch<B>) {
        let _ = (backend, x, &scratch.f8);
        todo!()
    }
}
