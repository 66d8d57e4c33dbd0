//! One block of any family, in steps that a quantizer can run one by one.
//!
//! ```text
//! qkv         scratch.qkv = rope(qk_norm(Qkv(norm(x))))   [q|k|v]
//! attention   scratch.c   = attention over the cache      input of Out
//! add_out     x += Out(c)
//! ffn_inner   scratch.f   = f(Up(norm(x)))                input of Down
//! add_down    x += Down(f)
//! ```
//!
//! What Qkv and Up take is quantized by the norm itself; `attn_norm` and `ffn_norm` give it as floats, for statistics.

use dualgrain_device::{ActivationScale, Columns, Device, Operand, Step};
use dualgrain_format::LinearWeights;

use crate::{
    Angles, BlockSpec, EngineError, FfnKind, ModelConfig, NormKind, NormSpec, Position, Role, Weights,
    load_role,
};

/// A packed linear with the way its input is quantized.
pub struct Projection<D: Device> {
    /// Packed weights `[n,k]`.
    pub linear: D::Linear,
    /// How the input becomes INT8; `None` for float weights.
    pub activations: Option<ActivationScale>,
}

/// A norm's parameters on the device.
pub struct Norm<D: Device> {
    spec: NormSpec,
    weight: D::Matrix,
    bias: Option<D::Matrix>,
}

/// What follows attention in a block.
#[non_exhaustive]
pub enum FeedForward<D: Device> {
    /// One feed-forward for every token.
    Dense {
        /// Gate and up joined, or fc1.
        up: Projection<D>,
        /// Gated or plain, with its activation function.
        kind: FfnKind,
        /// down, or fc2.
        down: Projection<D>,
    },
}

/// A block ready to run.
pub struct Block<D: Device> {
    spec: BlockSpec,
    attn_norm: Norm<D>,
    qkv: Projection<D>,
    qk_norm: Option<[Norm<D>; 2]>,
    out: Projection<D>,
    ffn_norm: Norm<D>,
    feed_forward: FeedForward<D>,
}

/// Buffers of a step, shared by all blocks; nothing is allocated while steps fit `capacity`.
pub struct Scratch<D: Device> {
    /// Output of a norm [M, hidden] where floats are wanted.
    pub h: D::Matrix,
    /// Queries, keys, values [M, q + k + v].
    pub qkv: D::Matrix,
    /// Attention output [M, num_heads * head_dim].
    pub c: D::Matrix,
    /// Gate and up [M, 2 * ffn]; not used by plain feed-forwards.
    pub up: D::Matrix,
    /// Input of the last linear [M, ffn].
    pub f: D::Matrix,
    /// Output of Out and Down [M, hidden], where they do not add to the stream themselves.
    pub y: D::Matrix,
    /// Output of a norm as INT8.
    pub h8: D::Quantized,
    c8: D::Quantized,
    f8: D::Quantized,
    angles: Option<StepAngles<D>>,
}

/// Rotary angles of a step.
struct StepAngles<D: Device> {
    angles: Angles,
    host: Vec<f32>,
    /// [M, head_dim]: cos | sin.
    rows: D::Matrix,
}

impl<D: Device> Block<D> {
    /// Loads block `layer` in the schemes its folder stores.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub fn load(
        device: &D,
        weights: &Weights,
        config: &ModelConfig,
        layer: usize,
    ) -> Result<Self, EngineError> {
        let spec = BlockSpec::new(config, layer);
        let projection = |role| {
            let joined = load_role(weights, &spec, role, config.quantization.as_ref())?;
            Projection::new(device, joined.weights)
        };
        let [qkv, out, up, down] = Role::ALL.map(projection);
        let [qkv, out, up, down] = [qkv?, out?, up?, down?];
        Self::from_projections(device, weights, spec, [qkv, out, up, down])
    }

    /// A block from its four linears (in the order of [`Role::ALL`]), with its norms from `weights`.
    ///
    /// # Errors
    /// A missing, misshapen or non-finite norm.
    pub fn from_projections(
        device: &D,
        weights: &Weights,
        spec: BlockSpec,
        [qkv, out, up, down]: [Projection<D>; 4],
    ) -> Result<Self, EngineError> {
        let norm = |spec: &NormSpec| Norm::load(device, weights, spec);
        let qk_norm = match &spec.qk_norm {
            Some([q, k]) => Some([norm(q)?, norm(k)?]),
            None => None,
        };
        Ok(Self {
            attn_norm: norm(&spec.attn_norm)?,
            ffn_norm: norm(&spec.ffn_norm)?,
            feed_forward: FeedForward::Dense {
                up,
                kind: spec.ffn,
                down,
            },
            qkv,
            qk_norm,
            out,
            spec,
        })
    }

    /// The whole block: `x` [M, hidden] is updated, keys and values of the step go to `cache_layer` of the cache. `next`
    /// is the linear that follows the block's own.
    #[allow(clippy::too_many_arguments, reason = "what a step needs")]
    pub fn forward(
        &self,
        device: &D,
        x: &mut D::Matrix,
        scratch: &mut Scratch<D>,
        cache: &mut D::Cache,
        cache_layer: usize,
        step: &Step<'_>,
        next: &D::Linear,
    ) {
        let FeedForward::Dense { up, down, .. } = &self.feed_forward;
        device.will_read(&self.out.linear);
        self.qkv(device, x, scratch);
        self.attention(device, scratch, cache, cache_layer, step);
        device.will_read(&up.linear);
        self.add_out(device, x, scratch);
        device.will_read(&down.linear);
        self.ffn_inner(device, x, scratch);
        device.will_read(next);
        self.add_down(device, x, scratch);
    }

    /// `scratch.h = norm(x)`: the input of [`Role::Qkv`], as floats.
    pub fn attn_norm(&self, device: &D, x: &D::Matrix, scratch: &mut Scratch<D>) {
        self.attn_norm.apply(device, &mut scratch.h, x);
    }

    /// `scratch.qkv` from `x`, with q/k norm and rope applied.
    pub fn qkv(&self, device: &D, x: &D::Matrix, scratch: &mut Scratch<D>) {
        let Scratch {
            h, qkv, h8, angles, ..
        } = scratch;
        self.qkv.apply_normed(device, qkv, (&self.attn_norm, x), h, h8);
        let [queries, keys, _] = self.columns();
        if let Some([q_norm, k_norm]) = &self.qk_norm {
            q_norm.apply_heads(device, qkv, queries.clone());
            k_norm.apply_heads(device, qkv, keys.clone());
        }
        if let (true, Some(angles)) = (self.spec.rope, angles) {
            // Queries and keys lie side by side and are rotated alike.
            device.rope(qkv, queries.start..keys.end, self.spec.head_dim, &angles.rows);
        }
    }

    /// Writes keys and values of `scratch.qkv` to the cache and attends: `scratch.c`, the input of [`Role::Out`].
    pub fn attention(
        &self,
        device: &D,
        scratch: &mut Scratch<D>,
        cache: &mut D::Cache,
        cache_layer: usize,
        step: &Step<'_>,
    ) {
        let Scratch { qkv, c, .. } = scratch;
        let [queries, keys, values] = self.columns();
        device.cache_write(cache, cache_layer, qkv, keys, values, step);
        device.attention(c, qkv, queries, cache, cache_layer, &self.spec.attention, step);
    }

    /// `x += Out(scratch.c)`.
    pub fn add_out(&self, device: &D, x: &mut D::Matrix, scratch: &mut Scratch<D>) {
        let Scratch { c, y, c8, .. } = scratch;
        device.gemm_add(x, y, self.out.operand(device, c, c8), &self.out.linear);
    }

    /// `scratch.h = norm(x)`: the input of [`Role::Up`], as floats.
    pub fn ffn_norm(&self, device: &D, x: &D::Matrix, scratch: &mut Scratch<D>) {
        self.ffn_norm.apply(device, &mut scratch.h, x);
    }

    /// `scratch.f` from `x`, activation applied: the input of [`Role::Down`].
    pub fn ffn_inner(&self, device: &D, x: &D::Matrix, scratch: &mut Scratch<D>) {
        let FeedForward::Dense { up: linear, kind, .. } = &self.feed_forward;
        let Scratch { h, up, f, h8, .. } = scratch;
        let input = linear.normed(device, (&self.ffn_norm, x), h, h8);
        match *kind {
            FfnKind::Gated(activation) => {
                device.gemm_gated(f, up, input, &linear.linear, activation);
            }
            FfnKind::Plain(activation) => {
                device.gemm(f, input, &linear.linear);
                device.activate(f, activation);
            }
        }
    }

    /// `x += Down(scratch.f)`.
    pub fn add_down(&self, device: &D, x: &mut D::Matrix, scratch: &mut Scratch<D>) {
        let FeedForward::Dense { down, .. } = &self.feed_forward;
        let Scratch { f, y, f8, .. } = scratch;
        device.gemm_add(x, y, down.operand(device, f, f8), &down.linear);
    }

    /// The block's description.
    pub fn spec(&self) -> &BlockSpec {
        &self.spec
    }

    /// One linear.
    pub fn projection(&self, role: Role) -> &Projection<D> {
        let FeedForward::Dense { up, down, .. } = &self.feed_forward;
        match role {
            Role::Qkv => &self.qkv,
            Role::Out => &self.out,
            Role::Up => up,
            Role::Down => down,
        }
    }

    /// Replaces one linear, e.g. by its quantized form.
    pub fn set_projection(&mut self, role: Role, projection: Projection<D>) {
        let FeedForward::Dense { up, down, .. } = &mut self.feed_forward;
        match role {
            Role::Qkv => self.qkv = projection,
            Role::Out => self.out = projection,
            Role::Up => *up = projection,
            Role::Down => *down = projection,
        }
    }

    /// Replaces the norm before attention (smoothing folds its scales there).
    pub fn set_attn_norm(&mut self, norm: Norm<D>) {
        self.attn_norm = norm;
    }

    /// Replaces the norm before the feed-forward.
    pub fn set_ffn_norm(&mut self, norm: Norm<D>) {
        self.ffn_norm = norm;
    }

    /// Columns of queries, keys and values in `scratch.qkv`.
    fn columns(&self) -> [Columns; 3] {
        let (q, kv) = (self.spec.q_size(), self.spec.kv_size());
        [0..q, q..q + kv, q + kv..q + 2 * kv]
    }
}

impl<D: Device> Projection<D> {
    /// Packs a linear; integer weights take INT8 inputs with their static scale, or one per token.
    ///
    /// # Errors
    /// A shape the device cannot hold.
    pub fn new(device: &D, weights: LinearWeights) -> Result<Self, EngineError> {
        Self::from_slices(device, (weights.n(), weights.k()), std::iter::once(Ok(weights)))
    }

    /// As [`Self::new`], from slices of the rows of a linear `[n,k]` (see [`Device::pack_slices`]).
    ///
    /// # Errors
    /// A shape the device cannot hold; the first error of `slices`.
    pub fn from_slices(
        device: &D,
        shape: (usize, usize),
        slices: impl Iterator<Item = Result<LinearWeights, EngineError>>,
    ) -> Result<Self, EngineError> {
        let mut activations = None;
        let slices = slices.inspect(|slice| match slice {
            Ok(LinearWeights::Float(_)) | Err(_) => {}
            Ok(integer) => {
                let scale = integer
                    .ta()
                    .map_or(ActivationScale::PerToken, ActivationScale::Static);
                activations = Some(scale);
            }
        });
        Ok(Self {
            linear: device.pack_slices(shape, slices)?,
            activations,
        })
    }

    /// `out = linear(norm(x))`, through `h` or `a8`.
    pub fn apply_normed(
        &self,
        device: &D,
        out: &mut D::Matrix,
        x: (&Norm<D>, &D::Matrix),
        h: &mut D::Matrix,
        a8: &mut D::Quantized,
    ) {
        device.gemm(out, self.normed(device, x, h, a8), &self.linear);
    }

    /// What the linear takes of `x`: itself, or `a8` when the weights are integers.
    fn operand<'x>(&self, device: &D, x: &'x D::Matrix, a8: &'x mut D::Quantized) -> Operand<'x, D> {
        match self.activations {
            None => Operand::Float(x),
            Some(scale) => {
                device.quantize(a8, x, scale);
                Operand::Int8(a8)
            }
        }
    }

    /// What the linear takes of `norm(x)`: `h`, or `a8` when the weights are integers.
    fn normed<'h>(
        &self,
        device: &D,
        (norm, x): (&Norm<D>, &D::Matrix),
        h: &'h mut D::Matrix,
        a8: &'h mut D::Quantized,
    ) -> Operand<'h, D> {
        match self.activations {
            None => {
                norm.apply(device, h, x);
                Operand::Float(h)
            }
            Some(scale) => {
                norm.apply_quantized(device, a8, h, x, scale);
                Operand::Int8(a8)
            }
        }
    }
}

impl<D: Device> Norm<D> {
    /// Loads a norm's tensors.
    ///
    /// # Errors
    /// A missing, misshapen or non-finite tensor.
    pub fn load(device: &D, weights: &Weights, spec: &NormSpec) -> Result<Self, EngineError> {
        let weight = weights.f32(&format!("{}.weight", spec.name), &[spec.len])?;
        let bias = match spec.kind {
            NormKind::Rms => None,
            NormKind::Layer => Some(weights.f32(&format!("{}.bias", spec.name), &[spec.len])?),
        };
        Ok(Self::new(device, spec, &weight, bias.as_deref()))
    }

    /// A norm from host values (after smoothing was folded in). `bias` belongs to [`NormKind::Layer`] only; without
    /// one it is zero.
    pub fn new(device: &D, spec: &NormSpec, weight: &[f32], bias: Option<&[f32]>) -> Self {
        let row = |values: &[f32]| {
            let mut row = device.matrix(1, spec.len);
            device.upload(&mut row, values);
            row
        };
        Self {
            spec: spec.clone(),
            weight: row(weight),
            bias: match spec.kind {
                NormKind::Rms => None,
                NormKind::Layer => Some(bias.map_or_else(|| row(&vec![0.0; spec.len]), row)),
            },
        }
    }

    /// `out = norm(x)`.
    pub fn apply(&self, device: &D, out: &mut D::Matrix, x: &D::Matrix) {
        match &self.bias {
            None => device.rms_norm(out, x, &self.weight, self.spec.eps),
            Some(bias) => device.layer_norm(out, x, &self.weight, bias, self.spec.eps),
        }
    }

    /// `out` = `norm(x)` as INT8, perhaps through `h`.
    fn apply_quantized(
        &self,
        device: &D,
        out: &mut D::Quantized,
        h: &mut D::Matrix,
        x: &D::Matrix,
        scale: ActivationScale,
    ) {
        let (weight, eps) = (&self.weight, self.spec.eps);
        match &self.bias {
            None => device.rms_norm_quantize(out, h, x, weight, eps, scale),
            Some(bias) => device.layer_norm_quantize(out, h, x, (weight, bias), eps, scale),
        }
    }

    fn apply_heads(&self, device: &D, x: &mut D::Matrix, columns: Columns) {
        device.rms_norm_heads(x, columns, &self.weight, self.spec.eps);
    }
}

impl<D: Device> Scratch<D> {
    /// Buffers for steps of up to `capacity` tokens.
    pub fn new(device: &D, config: &ModelConfig, capacity: usize) -> Self {
        let matrix = |columns| device.matrix(capacity, columns);
        let quantized = |columns| device.quantized(capacity, columns);
        let angles = match &config.position {
            Position::Rope(rope) => Some(StepAngles {
                angles: Angles::new(rope, config.head_dim),
                host: Vec::with_capacity(capacity * config.head_dim),
                rows: matrix(config.head_dim),
            }),
            _ => None,
        };
        let [hidden, q, qkv, up, ffn] = widths(config);
        Self {
            h: matrix(hidden),
            qkv: matrix(qkv),
            c: matrix(q),
            up: device.matrix(if up > 0 { capacity } else { 0 }, up.max(1)),
            f: matrix(ffn),
            y: matrix(hidden),
            h8: quantized(hidden),
            c8: quantized(q),
            f8: quantized(ffn),
            angles,
        }
    }

    /// Computes the rotary angles of a step; once per step, before the first block.
    pub fn prepare(&mut self, device: &D, positions: &[u32]) {
        if let Some(StepAngles { angles, host, rows }) = &mut self.angles {
            host.clear();
            angles.rows(positions, host);
            device.upload(rows, host);
        }
    }

    /// Bytes of the buffers for `capacity` tokens.
    pub fn size_bytes(config: &ModelConfig, capacity: usize) -> usize {
        let [hidden, q, qkv, up, ffn] = widths(config);
        let floats = 2 * hidden + qkv + q + up + ffn + 2 * config.head_dim;
        capacity * (4 * floats + hidden + q + ffn)
    }
}

/// Columns of h, c, qkv, up (0 where the feed-forward is plain) and f.
fn widths(config: &ModelConfig) -> [usize; 5] {
    let up = match config.ffn {
        FfnKind::Gated(_) => 2 * config.ffn_size,
        FfnKind::Plain(_) => 0,
    };
    let qkv = config.q_size() + 2 * config.kv_size();
    [config.hidden_size, config.q_size(), qkv, up, config.ffn_size]
}
