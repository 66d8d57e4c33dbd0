//! One block of any family, in steps that a quantizer can run one by one.
//!
//! ```text
//! qkv         scratch.qkv = rope(qk_norm(Qkv(norm(x))))   [q|k|v]
//! attention   scratch.c   = attention over the cache      input of Out
//! add_out     x += norm(Out(c))
//! ffn_inner   scratch.f   = f(Up(norm(x)))                input of Down; transformed where the model says so
//! add_down    x += norm(Down(f))
//! ```
//!
//! Any of the norms may be missing. In a parallel block `ffn_inner` comes before `add_out`: [`BlockSpec::parallel`].
//!
//! A model runs the same operations with more of them joined: see `forward.rs`. What Qkv and Up take is quantized by the norm
//! itself; `attn_norm` and `ffn_norm` give it as floats, for statistics.

use std::collections::BTreeMap;

use dualgrain_device::{Columns, Device, Done, Operand, Outputs};

use super::feed_forward::{ExpertProjections, FeedForward, Mlp};
use crate::{
    BlockSpec, EngineError, LinearId, LinearSpec, ModelConfig, Norm, NormSpec, Projection, Role, Scratch,
    Weights, load_linear,
};

/// A block ready to run.
pub struct Block<D: Device> {
    pub(super) spec: BlockSpec,
    pub(super) attn_norm: Option<Norm<D>>,
    pub(super) attn_out_norm: Option<Norm<D>>,
    pub(super) qkv: Projection<D>,
    pub(super) qk_norm: Option<[Norm<D>; 2]>,
    pub(super) out: Projection<D>,
    pub(super) ffn_norm: Option<Norm<D>>,
    pub(super) ffn_out_norm: Option<Norm<D>>,
    pub(super) feed_forward: FeedForward<D>,
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
        let projection = |linear: &LinearSpec| {
            let joined = load_linear(weights, linear, config.quantization.as_ref())?;
            Ok::<_, EngineError>((linear.id, Projection::new(device, joined.weights)?))
        };
        let projections = spec.linears.values().map(projection).collect::<Result<_, _>>()?;
        let mut block = Self::from_projections(device, weights, spec, projections)?;
        // Of a mixture the places of all rows are megabytes a block, and nothing that runs asks for them.
        block.spec.linears.clear();
        Ok(block)
    }

    /// A block from the linears of `spec`, with its norms from `weights`.
    ///
    /// # Errors
    /// A linear that is not there; a missing, misshapen or non-finite norm.
    pub fn from_projections(
        device: &D,
        weights: &Weights,
        mut spec: BlockSpec,
        mut projections: BTreeMap<LinearId, Projection<D>>,
    ) -> Result<Self, EngineError> {
        let mut take = |role| {
            let id = LinearId::dense(spec.layer, role);
            projections.remove(&id).ok_or(EngineError::NoLinear { id })
        };
        let (qkv, out) = (take(Role::Qkv)?, take(Role::Out)?);
        let norm = |spec: &NormSpec| Norm::load(device, weights, spec);
        let maybe = |spec: &Option<NormSpec>| spec.as_ref().map(norm).transpose();
        let qk_norm = match &spec.qk_norm {
            Some([q, k]) => Some([norm(q)?, norm(k)?]),
            None => None,
        };
        if let Some(name) = &spec.sinks {
            spec.attention.sinks = Some(weights.f32(name, &[spec.num_heads])?);
        }
        Ok(Self {
            attn_norm: maybe(&spec.attn_norm)?,
            attn_out_norm: maybe(&spec.attn_out_norm)?,
            ffn_norm: maybe(&spec.ffn_norm)?,
            ffn_out_norm: maybe(&spec.ffn_out_norm)?,
            feed_forward: FeedForward::take(device, weights, &spec, &mut projections)?,
            qkv,
            qk_norm,
            out,
            spec,
        })
    }

    /// `scratch.h = norm(x)`: the input of [`Role::Qkv`], as floats; nothing happens where the input is `x` itself.
    ///
    /// # Errors
    /// The device failed; so for every part below.
    pub fn attn_norm(&self, device: &D, x: &D::Matrix, scratch: &mut Scratch<D>) -> Done {
        let norm = self.attn_norm.as_ref();
        norm.map_or(Ok(()), |norm| norm.apply(device, &mut scratch.h, x))
    }

    /// `scratch.qkv` from `x`, with q/k norm and rope applied.
    ///
    /// # Errors
    /// The device failed.
    pub fn qkv(&self, device: &D, x: &D::Matrix, scratch: &mut Scratch<D>) -> Done {
        let Scratch {
            h, qkv, h8, angles, ..
        } = scratch;
        let input = (self.attn_norm.as_ref(), x);
        self.qkv.apply_normed(device, qkv, input, h, h8)?;
        let [queries, keys, _] = self.columns();
        self.norm_heads(device, qkv)?;
        match angles.rows(self.spec.rope) {
            // Queries and keys lie side by side and are rotated alike.
            Some(rows) => device.rope(qkv, queries.start..keys.end, self.spec.head_dim, rows),
            None => Ok(()),
        }
    }

    /// Writes keys and values of `scratch.qkv` to the cache and attends: `scratch.c`, the input of [`Role::Out`].
    ///
    /// # Errors
    /// The device failed.
    pub fn attention(
        &self,
        device: &D,
        scratch: &mut Scratch<D>,
        cache: &mut D::Cache,
        cache_layer: usize,
        step: &D::Step,
    ) -> Done {
        let Scratch { qkv, c, .. } = scratch;
        let [queries, keys, values] = self.columns();
        device.cache_write(cache, cache_layer, qkv, keys, values, step)?;
        device.attention(c, qkv, queries, cache, cache_layer, &self.spec.attention, step)
    }

    /// `x += Out(scratch.c)`, normed first where the block says so.
    ///
    /// # Errors
    /// The device failed.
    pub fn add_out(&self, device: &D, x: &mut D::Matrix, scratch: &mut Scratch<D>) -> Done {
        let Scratch { h, c, y, c8, .. } = scratch;
        let input = self.out.operand(device, c, c8)?;
        add(
            device,
            x,
            (y, h),
            (input, &self.out.linear),
            self.attn_out_norm.as_ref(),
        )
    }

    /// `scratch.h = norm(x)`: the input of [`Role::Up`], as floats; nothing happens where the input is `x` itself.
    ///
    /// # Errors
    /// The device failed.
    pub fn ffn_norm(&self, device: &D, x: &D::Matrix, scratch: &mut Scratch<D>) -> Done {
        let norm = self.ffn_norm.as_ref();
        norm.map_or(Ok(()), |norm| norm.apply(device, &mut scratch.h, x))
    }

    /// `scratch.f` from `x`, activation applied: the input of [`Role::Down`]. With experts, the inputs of theirs too.
    ///
    /// # Errors
    /// The device failed.
    pub fn ffn_inner(&self, device: &D, x: &D::Matrix, scratch: &mut Scratch<D>) -> Done {
        match &self.feed_forward {
            FeedForward::Dense(mlp) => {
                let Scratch { h, up, f, h8, .. } = scratch;
                let input = mlp.up.normed(device, (self.ffn_norm.as_ref(), x), h, h8)?;
                mlp.inner(device, (f, up), input)
            }
            FeedForward::Sparse(mixture) => {
                self.route(device, x, scratch)?;
                mixture.inner(device, scratch)
            }
        }
    }

    /// `scratch.h = norm(x)`, or `x` itself: what a router reads.
    fn float_input(&self, device: &D, x: &D::Matrix, scratch: &mut Scratch<D>) -> Done {
        match &self.ffn_norm {
            Some(norm) => norm.apply(device, &mut scratch.h, x),
            None => panic!("experts without a norm before them: no family has them"),
        }
    }

    /// Chooses the experts of the tokens in `x`, and leaves their normed input in `scratch.h`; nothing happens in a block without experts.
    ///
    /// # Errors
    /// The device failed.
    pub fn route(&self, device: &D, x: &D::Matrix, scratch: &mut Scratch<D>) -> Done {
        let FeedForward::Sparse(mixture) = &self.feed_forward else {
            return Ok(());
        };
        self.float_input(device, x, scratch)?;
        mixture.route(device, scratch)
    }

    /// `x += Down(scratch.f)`, normed first where the block says so.
    ///
    /// # Errors
    /// The device failed.
    pub fn add_down(&self, device: &D, x: &mut D::Matrix, scratch: &mut Scratch<D>) -> Done {
        match &self.feed_forward {
            FeedForward::Dense(Mlp { down, .. }) => {
                let Scratch { h, f, y, f8, .. } = scratch;
                let input = (down.operand(device, f, f8)?, &down.linear);
                add(device, x, (y, h), input, self.ffn_out_norm.as_ref())
            }
            FeedForward::Sparse(mixture) => mixture.add_down(device, x, scratch, None),
        }
    }

    /// The block's description; one that was loaded to run has no list of linears any more.
    pub fn spec(&self) -> &BlockSpec {
        &self.spec
    }

    /// One linear that every token takes; `None` when the block has none of that identity.
    pub fn projection(&self, id: LinearId) -> Option<&Projection<D>> {
        let mlp = self.feed_forward.mlp();
        match (id.role, id.expert) {
            _ if id.layer != self.spec.layer => None,
            (Role::Qkv, None) => Some(&self.qkv),
            (Role::Out, None) => Some(&self.out),
            (Role::Up, None) => mlp.map(|mlp| &mlp.up),
            (Role::Down, None) => mlp.map(|mlp| &mlp.down),
            (_, Some(_)) => None,
        }
    }

    /// All linears that every token takes, in order of execution.
    pub fn projections(&self) -> impl Iterator<Item = &Projection<D>> {
        let dense = Role::ALL.map(|role| LinearId::dense(self.spec.layer, role));
        dense.into_iter().filter_map(|id| self.projection(id))
    }

    /// Those linears as they lie on the device, with what becomes of their outputs. A norm takes them whole, and so does the sum of what
    /// experts give.
    pub fn linears(&self) -> impl Iterator<Item = (&D::Linear, Outputs)> {
        Role::ALL.into_iter().filter_map(|role| {
            let projection = self.projection(LinearId::dense(self.spec.layer, role))?;
            let rounded = match role {
                Role::Qkv => false,
                Role::Out => self.attn_out_norm.is_none(),
                Role::Up => self.feed_forward.mlp().is_some_and(Mlp::is_gated),
                Role::Down => self.ffn_out_norm.is_none() && !self.feed_forward.is_sparse(),
            };
            let outputs = if rounded { Outputs::Rounded } else { Outputs::Whole };
            Some((&projection.linear, outputs))
        })
    }

    /// The linears of all experts for a role.
    pub fn experts(&self, role: Role) -> Option<&ExpertProjections<D>> {
        self.feed_forward.experts(role)
    }

    /// Bytes of all linears.
    pub fn linear_bytes(&self, device: &D) -> usize {
        let dense = self
            .projections()
            .map(|projection| device.linear_bytes(&projection.linear));
        dense.sum::<usize>() + self.expert_bytes(device)
    }

    /// Bytes of the experts' linears among them.
    pub fn expert_bytes(&self, device: &D) -> usize {
        let experts = [Role::Up, Role::Down]
            .into_iter()
            .filter_map(|role| self.experts(role));
        experts
            .map(|experts| device.experts_bytes(&experts.linears))
            .sum()
    }

    /// The linear that a step runs first.
    pub fn first_projection(&self) -> &Projection<D> {
        &self.qkv
    }

    /// Replaces one linear, e.g. by its quantized form, and gives back what stood there.
    ///
    /// # Errors
    /// The block has no linear of that identity.
    pub fn set_projection(
        &mut self,
        id: LinearId,
        projection: Projection<D>,
    ) -> Result<Projection<D>, EngineError> {
        let place = match (id.role, id.expert) {
            _ if id.layer != self.spec.layer => None,
            (Role::Qkv, None) => Some(&mut self.qkv),
            (Role::Out, None) => Some(&mut self.out),
            (Role::Up, None) => self.feed_forward.mlp_mut().map(|mlp| &mut mlp.up),
            (Role::Down, None) => self.feed_forward.mlp_mut().map(|mlp| &mut mlp.down),
            (_, Some(_)) => None,
        };
        let place = place.ok_or(EngineError::NoLinear { id })?;
        Ok(std::mem::replace(place, projection))
    }

    /// Replaces the linears of all experts for a role, and gives back what stood there.
    ///
    /// # Errors
    /// The block has no experts.
    pub fn set_experts(
        &mut self,
        role: Role,
        experts: ExpertProjections<D>,
    ) -> Result<ExpertProjections<D>, EngineError> {
        let id = LinearId::dense(self.spec.layer, role);
        let place = self
            .feed_forward
            .experts_mut(role)
            .ok_or(EngineError::NoLinear { id })?;
        Ok(std::mem::replace(place, experts))
    }

    /// Replaces the router of a mixture; nothing where every token goes one way.
    pub fn set_router(&mut self, router: D::Linear) {
        if let Some(place) = self.feed_forward.router_mut() {
            *place = router;
        }
    }

    /// Replaces the norm before attention (smoothing folds its scales there).
    pub fn set_attn_norm(&mut self, norm: Norm<D>) {
        self.attn_norm = Some(norm);
    }

    /// Replaces the norm before the feed-forward.
    pub fn set_ffn_norm(&mut self, norm: Norm<D>) {
        self.ffn_norm = Some(norm);
    }

    /// Norms the heads of queries and keys, where the family does that.
    pub(super) fn norm_heads(&self, device: &D, qkv: &mut D::Matrix) -> Done {
        let [queries, keys, _] = self.columns();
        if let Some([q_norm, k_norm]) = &self.qk_norm {
            q_norm.apply_heads(device, qkv, queries)?;
            k_norm.apply_heads(device, qkv, keys)?;
        }
        Ok(())
    }

    /// Columns of queries, keys and values in `scratch.qkv`.
    pub(super) fn columns(&self) -> [Columns; 3] {
        let (q, kv) = (self.spec.q_size(), self.spec.kv_size());
        [0..q, q..q + kv, q + kv..q + 2 * kv]
    }
}

/// `x += norm(linear(input))` through `y` and `h`.
pub(super) fn add<D: Device>(
    device: &D,
    x: &mut D::Matrix,
    (y, h): (&mut D::Matrix, &mut D::Matrix),
    (input, linear): (Operand<'_, D>, &D::Linear),
    norm: Option<&Norm<D>>,
) -> Done {
    let Some(norm) = norm else {
        return device.gemm_add(x, y, input, linear);
    };
    device.gemm(y, input, linear)?;
    norm.apply(device, h, y)?;
    device.add(x, h)
}
