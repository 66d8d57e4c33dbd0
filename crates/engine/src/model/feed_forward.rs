//! What follows attention in a block: one feed-forward, or a mixture of experts.
//!
//! ```text
//! mixture     logits = Router(h);  routing = the experts of each token
//!             f = f(Up(h)) of the shared expert;  experts_f = f(Up(h)) of each token's experts
//!             y = Down(f);  experts_y = Down(experts_f);  x += y + weights * experts_y
//! ```

use std::collections::BTreeMap;

use dualgrain_device::{ActivationScale, Device, Done, ExpertInput, Operand};

use super::linears::load_router;
use super::projection::{Projection, input, operand};
use super::scratch::{MixtureScratch, Scratch};
use crate::{BlockSpec, EngineError, FfnKind, LinearId, MixtureSpec, Role, Weights};

/// Two linears with an activation between them: the feed-forward of a block, or the expert that every token goes to.
pub struct Mlp<D: Device> {
    /// Gate and up joined, or fc1.
    pub up: Projection<D>,
    /// Gated or plain, with its activation function.
    pub kind: FfnKind,
    /// What is between the two goes through a Hadamard transform in blocks of so many channels.
    pub hadamard: Option<usize>,
    /// down, or fc2.
    pub down: Projection<D>,
}

impl<D: Device> Mlp<D> {
    /// Whether the outputs of `self.up` are a gate and what it gates.
    pub(super) fn is_gated(&self) -> bool {
        matches!(self.kind, FfnKind::Gated(_))
    }

    /// `f = f(Up(input))`, transformed where Down takes that; through `wide`.
    pub(super) fn inner(
        &self,
        device: &D,
        (f, wide): (&mut D::Matrix, &mut D::Matrix),
        input: Operand<'_, D>,
    ) -> Done {
        match self.kind {
            FfnKind::Gated(activation) => device.gemm_gated(f, wide, input, &self.up.linear, activation)?,
            FfnKind::Plain(activation) => {
                device.gemm(f, input, &self.up.linear)?;
                device.activate(f, activation)?;
            }
        }
        self.transform(device, f)
    }

    /// Transforms the input of `self.down`, where it takes a transformed one.
    pub(super) fn transform(&self, device: &D, f: &mut D::Matrix) -> Done {
        transform(device, f, self.hadamard)
    }
}

/// One of the linears of every expert.
pub struct ExpertProjections<D: Device> {
    /// Packed weights `[n,k]`, one for each expert.
    pub linears: D::Experts,
    /// How the input becomes INT8; `None` for float weights.
    pub activations: Option<ActivationScale>,
}

impl<D: Device> ExpertProjections<D> {
    /// Joins the projections of all experts; `id` is one of them.
    ///
    /// # Errors
    /// Some take floats and some INT8, or by scales of their own; the device has no room.
    pub fn new(device: &D, id: LinearId, projections: Vec<Projection<D>>) -> Result<Self, EngineError> {
        let activations = projections.first().and_then(|projection| projection.activations);
        if projections.iter().any(|other| other.activations != activations) {
            return Err(EngineError::UnlikeExperts { id });
        }
        let linears = projections.into_iter().map(|projection| projection.linear);
        Ok(Self {
            linears: device.experts(linears.collect())?,
            activations,
        })
    }
}

/// A mixture of experts.
pub struct Mixture<D: Device> {
    spec: MixtureSpec,
    router: D::Linear,
    selection_bias: Option<D::Matrix>,
    kind: FfnKind,
    hadamard: Option<usize>,
    /// Gate and up of the experts.
    pub(super) up: ExpertProjections<D>,
    /// Down of the experts.
    pub(super) down: ExpertProjections<D>,
    /// What every token goes through beside its experts.
    pub(super) shared: Option<Mlp<D>>,
}

impl<D: Device> Mixture<D> {
    /// Chooses the experts of the tokens in `scratch.h`, the normed input.
    pub(super) fn route(&self, device: &D, scratch: &mut Scratch<D>) -> Done {
        let Scratch { h, mixture, .. } = scratch;
        let MixtureScratch { logits, routing, .. } = room(mixture);
        device.gemm(logits, Operand::Float(h), &self.router)?;
        device.route(routing, logits, self.selection_bias.as_ref(), &self.spec.rule)
    }

    /// `scratch.f` of the shared expert and the experts' own, from `scratch.h`: the inputs of all Downs.
    pub(super) fn inner(&self, device: &D, scratch: &mut Scratch<D>) -> Done {
        let Scratch {
            h,
            up,
            f,
            h8,
            mixture,
            ..
        } = scratch;
        let experts = room(mixture);
        let shared = self.shared.as_ref();
        if let Some(shared) = shared {
            shared.inner(device, (f, up), shared.up.operand(device, h, h8)?)?;
        }
        let FfnKind::Gated(activation) = self.kind else {
            panic!("experts without a gate: no family has them")
        };
        let wanted = self.up.activations;
        // The shared expert may have left the same codes.
        let read = match shared.is_some_and(|shared| shared.up.activations == wanted) {
            true => input(wanted, h, h8),
            false => operand(wanted, device, h, h8)?,
        };
        let input = (read, ExpertInput::Tokens);
        device.gemm_experts_gated(
            &mut experts.f,
            &mut experts.up,
            input,
            &self.up.linears,
            &mut experts.routing,
            activation,
        )?;
        transform(device, &mut experts.f, self.hadamard)
    }

    /// `x += ` what the experts make of the rows that [`Self::inner`] left; `next` is the linear behind them.
    pub(super) fn add_down(
        &self,
        device: &D,
        x: &mut D::Matrix,
        scratch: &mut Scratch<D>,
        next: Option<&D::Linear>,
    ) -> Done {
        let Scratch {
            f, y, f8, mixture, ..
        } = scratch;
        let experts = room(mixture);
        if let Some(shared) = &self.shared {
            let input = shared.down.operand(device, f, f8)?;
            device.gemm(y, input, &shared.down.linear)?;
        }
        let input = operand(self.down.activations, device, &experts.f, &mut experts.f8)?;
        if let Some(next) = next {
            device.will_read(next);
        }
        let rows = (input, ExpertInput::Rows);
        device.gemm_experts(&mut experts.y, rows, &self.down.linears, &mut experts.routing)?;
        let shared = self.shared.as_ref().map(|_| &*y);
        device.combine(x, &experts.y, shared, &experts.routing)
    }
}

/// What follows attention in a block.
pub enum FeedForward<D: Device> {
    /// One feed-forward for every token.
    Dense(Mlp<D>),
    /// Some experts for each token.
    Sparse(Box<Mixture<D>>),
}

impl<D: Device> FeedForward<D> {
    /// Takes the linears of `spec` that follow attention out of `projections`.
    pub(super) fn take(
        device: &D,
        weights: &Weights,
        spec: &BlockSpec,
        projections: &mut BTreeMap<LinearId, Projection<D>>,
    ) -> Result<Self, EngineError> {
        let mut take = |id: LinearId| projections.remove(&id).ok_or(EngineError::NoLinear { id });
        let mut mlp = || {
            Ok::<_, EngineError>(Mlp {
                up: take(LinearId::dense(spec.layer, Role::Up))?,
                kind: spec.ffn,
                hadamard: spec.hadamard_down,
                down: take(LinearId::dense(spec.layer, Role::Down))?,
            })
        };
        let Some(mixture) = &spec.mixture else {
            return Ok(Self::Dense(mlp()?));
        };
        let shared = mixture.has_shared.then(&mut mlp).transpose()?;
        let mut experts = |role: Role| {
            let id = |expert| LinearId {
                expert: Some(expert),
                ..LinearId::dense(spec.layer, role)
            };
            let all = (0..mixture.num_experts).map(|expert| take(id(expert)));
            ExpertProjections::new(device, id(0), all.collect::<Result<_, _>>()?)
        };
        let (up, down) = (experts(Role::Up)?, experts(Role::Down)?);
        Ok(Self::Sparse(Box::new(Mixture {
            router: device.pack(load_router(weights, mixture, spec.hidden_size)?)?,
            selection_bias: selection_bias(device, weights, mixture)?,
            spec: mixture.clone(),
            kind: spec.ffn,
            hadamard: spec.hadamard_down,
            up,
            down,
            shared,
        })))
    }

    /// The feed-forward that every token goes through.
    pub(super) fn mlp(&self) -> Option<&Mlp<D>> {
        match self {
            Self::Dense(mlp) => Some(mlp),
            Self::Sparse(mixture) => mixture.shared.as_ref(),
        }
    }

    pub(super) fn is_sparse(&self) -> bool {
        matches!(self, Self::Sparse(_))
    }

    pub(super) fn mlp_mut(&mut self) -> Option<&mut Mlp<D>> {
        match self {
            Self::Dense(mlp) => Some(mlp),
            Self::Sparse(mixture) => mixture.shared.as_mut(),
        }
    }

    /// The linears of all experts for a role.
    pub(super) fn experts(&self, role: Role) -> Option<&ExpertProjections<D>> {
        match (self, role) {
            (Self::Sparse(mixture), Role::Up) => Some(&mixture.up),
            (Self::Sparse(mixture), Role::Down) => Some(&mixture.down),
            _ => None,
        }
    }

    /// What chooses the experts.
    pub(super) fn router_mut(&mut self) -> Option<&mut D::Linear> {
        match self {
            Self::Dense(_) => None,
            Self::Sparse(mixture) => Some(&mut mixture.router),
        }
    }

    pub(super) fn experts_mut(&mut self, role: Role) -> Option<&mut ExpertProjections<D>> {
        match (self, role) {
            (Self::Sparse(mixture), Role::Up) => Some(&mut mixture.up),
            (Self::Sparse(mixture), Role::Down) => Some(&mut mixture.down),
            _ => None,
        }
    }
}

fn selection_bias<D: Device>(
    device: &D,
    weights: &Weights,
    spec: &MixtureSpec,
) -> Result<Option<D::Matrix>, EngineError> {
    let Some(name) = &spec.selection_bias else {
        return Ok(None);
    };
    let mut bias = device.matrix(1, spec.num_experts)?;
    device.upload(&mut bias, &weights.f32(name, &[spec.num_experts])?)?;
    Ok(Some(bias))
}

fn transform<D: Device>(device: &D, f: &mut D::Matrix, block: Option<usize>) -> Done {
    match block {
        Some(block) => device.hadamard(f, block),
        None => Ok(()),
    }
}

/// The buffers of the experts, which a model with a mixture has.
fn room<D: Device>(scratch: &mut Option<MixtureScratch<D>>) -> &mut MixtureScratch<D> {
    match scratch {
        Some(scratch) => scratch,
        None => panic!("the buffers were made for a model without experts"),
    }
}
