//! All blocks of a model, one after the other, with as many operations joined as the contract has joined ones.
//!
//! A residual addition and the norm behind it are one operation, and the norm may belong to the next block. So the input of a
//! block's first linear is made before the block, and the block leaves that of the next one:
//!
//! ```text
//! h = norm(x)
//! each block:  qkv = Qkv(h);  rotate and write to the cache;  c = attention;
//!              x += Out(c), h = norm(x);  f = f(Up(h));
//!              x += Down(f), h = norm(x) of the next block
//! ```
//!
//! Where attention and feed-forward are parallel, `h = norm(x); f = f(Up(h))` comes before `x += Out(c)`. What is added may be normed
//! first; then addition and norms are operations of their own.

use dualgrain_device::{Device, Done, Operand};

use super::block::{Block, add};
use super::feed_forward::{FeedForward, Mixture, Mlp};
use super::norm::Norm;
use super::projection::Projection;
use super::scratch::Scratch;
use crate::FfnKind;

/// The buffers that a step of all blocks works on.
pub struct StepState<'a, D: Device> {
    /// The residual stream `[M, hidden]`.
    pub x: &'a mut D::Matrix,
    /// Everything between.
    pub scratch: &'a mut Scratch<D>,
    /// Keys and values.
    pub cache: &'a mut D::Cache,
    /// Positions and pages.
    pub step: &'a D::Step,
}

/// Runs `blocks`, block i on layer i of the cache; `last` is the linear that follows them.
///
/// # Errors
/// The device failed.
pub fn run_blocks<D: Device>(
    device: &D,
    blocks: &[Block<D>],
    mut state: StepState<'_, D>,
    last: &D::Linear,
) -> Done {
    let Some(first) = blocks.first() else {
        return Ok(());
    };
    let Scratch { h, h8, .. } = &mut *state.scratch;
    first
        .qkv
        .norm_input(device, (first.attn_norm.as_ref(), state.x), h, h8)?;
    for (layer, block) in blocks.iter().enumerate() {
        let next = blocks.get(layer + 1);
        match &block.feed_forward {
            FeedForward::Dense(mlp) => block.run_dense(device, &mut state, (layer, mlp), (next, last))?,
            FeedForward::Sparse(mixture) => {
                block.run_sparse(device, &mut state, (layer, mixture), (next, last))?
            }
        }
    }
    Ok(())
}

impl<D: Device> Block<D> {
    fn run_dense(
        &self,
        device: &D,
        state: &mut StepState<'_, D>,
        (layer, mlp): (usize, &Mlp<D>),
        next: (Option<&Self>, &D::Linear),
    ) -> Done {
        let (up, down, out) = (&mlp.up.linear, &mlp.down.linear, &self.out.linear);
        if self.spec.parallel {
            self.attend(device, state, (layer, up))?;
            self.norm_for_feed_forward(device, state, mlp)?;
            self.activate(device, state, (mlp, out))?;
            self.add_attention(device, state, Some(down), None)?;
        } else {
            self.attend(device, state, (layer, out))?;
            let reader = (&mlp.up, self.ffn_norm.as_ref());
            self.add_attention(device, state, Some(up), Some(reader))?;
            self.activate(device, state, (mlp, down))?;
        }
        self.add_feed_forward(device, state, mlp, next)
    }

    /// Which experts a step takes is not known before their products, so nothing of them is read ahead.
    fn run_sparse(
        &self,
        device: &D,
        state: &mut StepState<'_, D>,
        (layer, mixture): (usize, &Mixture<D>),
        (next, last): (Option<&Self>, &D::Linear),
    ) -> Done {
        self.attend(device, state, (layer, &self.out.linear))?;
        self.add_attention(device, state, None, None)?;
        self.ffn_inner(device, state.x, state.scratch)?;
        let after = next.map_or(last, |next| &next.qkv.linear);
        mixture.add_down(device, state.x, state.scratch, Some(after))?;
        let Some(next) = next else { return Ok(()) };
        let Scratch { h, h8, .. } = &mut *state.scratch;
        next.qkv
            .norm_input(device, (next.attn_norm.as_ref(), state.x), h, h8)
    }

    /// Attention of the normed input, as [`Projection::input`] of `self.out` finds it; `after` is the linear behind `self.qkv`.
    fn attend(&self, device: &D, state: &mut StepState<'_, D>, (layer, after): (usize, &D::Linear)) -> Done {
        let Scratch {
            h,
            qkv,
            c,
            h8,
            c8,
            angles,
            ..
        } = &mut *state.scratch;
        let rows = angles.rows(self.spec.rope);
        let [queries, keys, values] = self.columns();
        device.will_read(after);
        let input = self.qkv.normed_input(self.attn_norm.as_ref(), (state.x, h), h8);
        device.gemm(qkv, input, &self.qkv.linear)?;
        self.norm_heads(device, qkv)?;
        let (cache, step, params) = (&mut *state.cache, state.step, &self.spec.attention);
        match (rows, self.out.activations) {
            (Some(rows), Some(scale)) => {
                let (out, columns) = ((c8, scale), [queries, keys, values]);
                let angles = (self.spec.head_dim, rows);
                device.rope_cache_write_attention_quantize(
                    out, c, cache, layer, qkv, columns, angles, params, step,
                )
            }
            (Some(rows), None) => {
                let columns = [queries.clone(), keys, values];
                device.rope_cache_write(cache, layer, qkv, columns, self.spec.head_dim, rows, step)?;
                device.attention(c, qkv, queries, cache, layer, params, step)
            }
            (None, _) => {
                device.cache_write(cache, layer, qkv, keys, values, step)?;
                device.attention(c, qkv, queries, cache, layer, params, step)?;
                self.out.operand(device, c, c8).map(drop)
            }
        }
    }

    /// Makes the input of a parallel feed-forward; where it is that of attention, it is there.
    fn norm_for_feed_forward(&self, device: &D, state: &mut StepState<'_, D>, mlp: &Mlp<D>) -> Done {
        if self.spec.shares_norm() && self.qkv.activations == mlp.up.activations {
            return Ok(());
        }
        let Scratch { h, h8, .. } = &mut *state.scratch;
        mlp.up
            .norm_input(device, (self.ffn_norm.as_ref(), state.x), h, h8)
    }

    /// Adds what attention gave, and makes the input of `next`; `after` is the linear behind it.
    fn add_attention(
        &self,
        device: &D,
        state: &mut StepState<'_, D>,
        after: Option<&D::Linear>,
        next: Option<Reader<'_, D>>,
    ) -> Done {
        if let Some(after) = after {
            device.will_read(after);
        }
        let Scratch { h, c, y, h8, c8, .. } = &mut *state.scratch;
        let out = (self.out.input(c, c8), &self.out.linear);
        let norm = self.attn_out_norm.as_ref();
        add_then_read(device, (state.x, y), out, norm, next, (h, h8))
    }

    /// `scratch.f`, or `scratch.f8` where the last linear of the feed-forward takes codes; `after` is the linear behind its first one.
    fn activate(
        &self,
        device: &D,
        state: &mut StepState<'_, D>,
        (mlp, after): (&Mlp<D>, &D::Linear),
    ) -> Done {
        device.will_read(after);
        let Scratch {
            h,
            up: wide,
            f,
            h8,
            f8,
            ..
        } = &mut *state.scratch;
        let input = mlp.up.normed_input(self.ffn_norm.as_ref(), (state.x, h), h8);
        match (mlp.kind, mlp.down.activations) {
            (FfnKind::Gated(activation), Some(scale)) => {
                let between = (activation, mlp.hadamard);
                device.gemm_gated_quantize(f8, f, wide, input, &mlp.up.linear, between, scale)
            }
            (FfnKind::Gated(activation), None) => {
                device.gemm_gated(f, wide, input, &mlp.up.linear, activation)?;
                mlp.transform(device, f)
            }
            (FfnKind::Plain(activation), _) => {
                device.gemm(f, input, &mlp.up.linear)?;
                device.activate(f, activation)?;
                mlp.transform(device, f)?;
                mlp.down.operand(device, f, f8).map(drop)
            }
        }
    }

    /// Adds the feed-forward, and makes the input of the next block; `last` follows the last one.
    fn add_feed_forward(
        &self,
        device: &D,
        state: &mut StepState<'_, D>,
        mlp: &Mlp<D>,
        (next, last): (Option<&Self>, &D::Linear),
    ) -> Done {
        device.will_read(next.map_or(last, |next| &next.qkv.linear));
        let Scratch { h, f, y, h8, f8, .. } = &mut *state.scratch;
        let out = (mlp.down.input(f, f8), &mlp.down.linear);
        let norm = self.ffn_out_norm.as_ref();
        let next = next.map(|next| (&next.qkv, next.attn_norm.as_ref()));
        add_then_read(device, (state.x, y), out, norm, next, (h, h8))
    }
}

/// A linear that reads the residual stream, behind its norm if it has one.
type Reader<'a, D> = (&'a Projection<D>, Option<&'a Norm<D>>);

/// `x += norm(linear(input))` through `y` and `h`, then the input of `next` for its [`Projection::normed_input`].
fn add_then_read<D: Device>(
    device: &D,
    (x, y): (&mut D::Matrix, &mut D::Matrix),
    (input, linear): (Operand<'_, D>, &D::Linear),
    norm: Option<&Norm<D>>,
    next: Option<Reader<'_, D>>,
    (h, h8): (&mut D::Matrix, &mut D::Quantized),
) -> Done {
    if let (None, Some((next, its_norm))) = (norm, next) {
        return next.add_then_norm_input(device, (x, y), (input, linear), its_norm, (h, h8));
    }
    add(device, x, (y, h), (input, linear), norm)?;
    match next {
        Some((next, its_norm)) => next.norm_input(device, (its_norm, x), h, h8),
        None => Ok(()),
    }
}
