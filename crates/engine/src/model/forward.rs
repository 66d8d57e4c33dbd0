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

use dualgrain_device::{Device, Done};

use super::block::{Block, FeedForward, Mlp};
use super::scratch::{Scratch, StepAngles};
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
    first.qkv.norm_input(device, (&first.attn_norm, state.x), h, h8)?;
    for (layer, block) in blocks.iter().enumerate() {
        let next = blocks.get(layer + 1);
        block.attend(device, &mut state, layer)?;
        let FeedForward::Dense(mlp) = &block.feed_forward;
        block.add_attention(device, &mut state, mlp)?;
        mlp.run(device, &mut state, next, last)?;
    }
    Ok(())
}

impl<D: Device> Block<D> {
    /// Attention of the normed input, as [`Projection::normed_input`](super::projection::Projection::normed_input) of `self.out` finds it.
    fn attend(&self, device: &D, state: &mut StepState<'_, D>, layer: usize) -> Done {
        let Scratch {
            h,
            qkv,
            c,
            h8,
            c8,
            angles,
            ..
        } = &mut *state.scratch;
        let [queries, keys, values] = self.columns();
        device.will_read(&self.out.linear);
        device.gemm(qkv, self.qkv.normed_input(h, h8), &self.qkv.linear)?;
        self.norm_heads(device, qkv)?;
        let (cache, step, params) = (&mut *state.cache, state.step, &self.spec.attention);
        let angles = angles.as_ref().filter(|_| self.spec.rope);
        match (angles, self.out.activations) {
            (Some(StepAngles { rows, .. }), Some(scale)) => {
                let (out, columns) = ((c8, scale), [queries, keys, values]);
                let angles = (self.spec.head_dim, rows);
                device.rope_cache_write_attention_quantize(
                    out, c, cache, layer, qkv, columns, angles, params, step,
                )
            }
            (Some(StepAngles { rows, .. }), None) => {
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

    /// Adds what attention gave, and norms for the feed-forward.
    fn add_attention(&self, device: &D, state: &mut StepState<'_, D>, mlp: &Mlp<D>) -> Done {
        let Scratch { h, c, y, h8, c8, .. } = &mut *state.scratch;
        device.will_read(&mlp.up.linear);
        let out = (self.out.normed_input(c, c8), &self.out.linear);
        mlp.up
            .add_then_norm_input(device, (state.x, y), out, &self.ffn_norm, (h, h8))
    }
}

impl<D: Device> Mlp<D> {
    /// Adds the feed-forward of the normed input, and norms for the next block.
    fn run(
        &self,
        device: &D,
        state: &mut StepState<'_, D>,
        next: Option<&Block<D>>,
        last: &D::Linear,
    ) -> Done {
        let Self { kind, down, .. } = self;
        device.will_read(&down.linear);
        self.activate(device, state.scratch)?;
        device.will_read(next.map_or(last, |next| &next.qkv.linear));
        let Scratch { h, f, y, h8, f8, .. } = &mut *state.scratch;
        let inner = match (down.activations, kind) {
            // Quantized as it was activated.
            (Some(_), FfnKind::Gated(_)) => down.normed_input(f, f8),
            _ => down.operand(device, f, f8)?,
        };
        match next {
            Some(Block { qkv, attn_norm, .. }) => {
                let out = (inner, &down.linear);
                qkv.add_then_norm_input(device, (state.x, y), out, attn_norm, (h, h8))
            }
            None => device.gemm_add(state.x, y, inner, &down.linear),
        }
    }

    /// `scratch.f`, or `scratch.f8` where the feed-forward is gated and its last linear takes codes.
    fn activate(&self, device: &D, scratch: &mut Scratch<D>) -> Done {
        let Scratch {
            h,
            up: wide,
            f,
            h8,
            f8,
            ..
        } = scratch;
        let (input, up) = (self.up.normed_input(h, h8), &self.up.linear);
        match (self.kind, self.down.activations) {
            (FfnKind::Gated(activation), Some(scale)) => {
                let between = (activation, self.hadamard);
                device.gemm_gated_quantize(f8, f, wide, input, up, between, scale)
            }
            (FfnKind::Gated(activation), None) => {
                device.gemm_gated(f, wide, input, up, activation)?;
                self.transform(device, f)
            }
            (FfnKind::Plain(activation), _) => {
                device.gemm(f, input, up)?;
                device.activate(f, activation)?;
                self.transform(device, f)
            }
        }
    }
}
