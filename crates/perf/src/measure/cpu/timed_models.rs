//! Runs small models of random weights whole on a CPU, operation by operation as the engine's `forward.rs` does: the chain of
//! products with what is joined to them, attention over an INT8 cache, the output layer. One model lies in any last-level cache,
//! one in that of a server, one beyond what a program gets of any.

use std::time::Instant;

use dualgrain_cpu::{Cache, CpuDevice, Linear, Matrix, Quantized};
use dualgrain_device::{
    Activation, ActivationScale, AttentionParams, CacheFormat, CacheShape, Device, DeviceError, Done,
    HostStep, Operand, PAGE_TOKENS,
};

use super::op::ProductType;
use super::operands::DrawnOperands;
use crate::error::PerfError;
use crate::measure::small_ops::{filled, step_of};
use crate::measure::times::quartiles;
use crate::timed_models::{DecodeStep, GROUP_SIZE, ModelSizes, TimedModel};

/// 10 MB of linears.
const SMALL: ModelSizes = ModelSizes {
    num_layers: 8,
    hidden: 384,
    num_heads: 6,
    num_kv_heads: 2,
    head_dim: 64,
    ffn: 1_024,
    vocab_size: 8_192,
};
/// Two blocks of a 1.1 B Llama: 63 MB.
const MIDDLE: ModelSizes = ModelSizes {
    num_layers: 2,
    hidden: 2_048,
    num_heads: 32,
    num_kv_heads: 4,
    head_dim: 64,
    ffn: 5_632,
    vocab_size: 8_192,
};
/// Sixteen of them: 430 MB.
const LARGE: ModelSizes = ModelSizes {
    num_layers: 16,
    vocab_size: 32_000,
    ..MIDDLE
};
const MODELS: [ModelSizes; 3] = [SMALL, MIDDLE, LARGE];

const PROMPT_TOKENS: usize = 512;
const CONTEXT: usize = 9 * PAGE_TOKENS;
const SEQUENCES: [usize; 3] = [1, 4, 16];
/// Steps are repeated so often, each repetition for so long at least.
const REPEATS: usize = 5;
const REPEAT_S: f64 = 5e-3;
const EPS: f32 = 1e-5;
const SCALE: ActivationScale = ActivationScale::PerToken;

/// The models that fit in `free_bytes`, timed with all threads of `device`.
///
/// # Errors
/// Memory that cannot be had.
pub(crate) fn timed_models(device: &CpuDevice, free_bytes: f64) -> Result<Vec<TimedModel>, PerfError> {
    let fits = |sizes: &ModelSizes| sizes.bytes() < free_bytes;
    MODELS
        .into_iter()
        .filter(fits)
        .map(|sizes| timed_model(device, sizes))
        .collect()
}

/// Times the steps of a model with all threads of `device`.
///
/// # Errors
/// Memory that cannot be had.
fn timed_model(device: &CpuDevice, sizes: ModelSizes) -> Result<TimedModel, PerfError> {
    let mut model = RandomModel::new(device, sizes)?;
    let positions: Vec<u32> = (0..PROMPT_TOKENS as u32).collect();
    let prompt_s = model.step_s(&positions, &vec![0; PROMPT_TOKENS], 1)?;
    model.fill_cache()?;
    let mut decode = Vec::new();
    for sequences in SEQUENCES {
        let each: Vec<u32> = (0..sequences as u32).collect();
        let positions = vec![CONTEXT as u32 - 1; sequences];
        let time_s = model.step_s(&positions, &each, sequences)?;
        decode.push(DecodeStep { sequences, time_s });
    }
    Ok(TimedModel {
        sizes,
        prompt_tokens: PROMPT_TOKENS,
        prompt_s,
        context: CONTEXT,
        decode,
    })
}

impl ModelSizes {
    /// Memory that a model takes while it is made and run, at most: linears with what they were drawn from, and the cache.
    fn bytes(&self) -> f64 {
        let elements = |[n, k]: [usize; 2]| (n * k) as f64;
        let block: f64 = self.block().into_iter().map(elements).sum();
        let positions = (SEQUENCES[SEQUENCES.len() - 1] * CONTEXT * self.num_layers) as f64;
        let cached = 2.0 * (self.head_dim + 4) as f64 * self.num_kv_heads as f64;
        block * (4.0 + 0.55 * self.num_layers as f64) + 5.0 * elements(self.head()) + positions * cached
    }
}

/// A model whose blocks hold the same numbers in memory of their own.
struct RandomModel<'a> {
    device: &'a CpuDevice,
    sizes: ModelSizes,
    blocks: Vec<[Linear; 4]>,
    head: Linear,
    norm: Matrix,
    cache: Cache,
    attention: AttentionParams,
}

/// What a step works on.
struct Buffers {
    step: HostStep,
    x: Matrix,
    h: Matrix,
    y: Matrix,
    qkv: Matrix,
    c: Matrix,
    wide: Matrix,
    f: Matrix,
    angles: Matrix,
    last: Matrix,
    logits: Matrix,
    h8: Quantized,
    c8: Quantized,
    f8: Quantized,
    last8: Quantized,
}

impl<'a> RandomModel<'a> {
    fn new(device: &'a CpuDevice, sizes: ModelSizes) -> Result<Self, PerfError> {
        let group = GROUP_SIZE;
        let drawn = |op, [n, k]: [usize; 2]| DrawnOperands::new(op, (1, n, k), group);
        let [qkv, out, up, down] = sizes.block().map(|shape| drawn(ProductType::W4a8, shape));
        let block = [qkv?, out?, up?, down?];
        let mut blocks = Vec::new();
        for _ in 0..sizes.num_layers {
            let [qkv, out, up, down] = block.each_ref().map(|linear| linear.pack(device));
            blocks.push([qkv?, out?, up?, down?]);
        }
        let shape = CacheShape {
            num_layers: sizes.num_layers,
            num_kv_heads: sizes.num_kv_heads,
            head_dim: sizes.head_dim,
            num_pages: SEQUENCES[SEQUENCES.len() - 1] * CONTEXT / PAGE_TOKENS,
        };
        Ok(Self {
            device,
            sizes,
            blocks,
            head: drawn(ProductType::W8a8, sizes.head())?.pack(device)?,
            norm: filled(device, 1, sizes.hidden, 21)?,
            cache: device.cache(shape, &CacheFormat::Int8)?,
            attention: AttentionParams {
                num_heads: sizes.num_heads,
                scale: 1.0 / (sizes.head_dim as f32).sqrt(),
                sliding_window: None,
                soft_cap: None,
                alibi_slopes: None,
                sinks: None,
            },
        })
    }

    fn buffers(
        &self,
        positions: &[u32],
        sequences: &[u32],
        num_logits: usize,
    ) -> Result<Buffers, DeviceError> {
        let (device, sizes, rows) = (self.device, &self.sizes, positions.len());
        let (hidden, q, ffn) = (sizes.hidden, sizes.q(), sizes.ffn);
        Ok(Buffers {
            step: step_of(device, positions, sequences)?,
            x: filled(device, rows, hidden, 22)?,
            h: device.matrix(rows, hidden)?,
            y: device.matrix(rows, hidden)?,
            qkv: device.matrix(rows, q + 2 * sizes.kv())?,
            c: device.matrix(rows, q)?,
            wide: device.matrix(rows, 2 * ffn)?,
            f: device.matrix(rows, ffn)?,
            angles: filled(device, rows, sizes.head_dim, 23)?,
            last: filled(device, num_logits, hidden, 24)?,
            logits: device.matrix(num_logits, sizes.vocab_size)?,
            h8: device.quantized(rows, hidden)?,
            c8: device.quantized(rows, q)?,
            f8: device.quantized(rows, ffn)?,
            last8: device.quantized(num_logits, hidden)?,
        })
    }

    /// Writes every position that decode reads.
    fn fill_cache(&mut self) -> Done {
        let (q, kv) = (self.sizes.q(), self.sizes.kv());
        let positions: Vec<u32> = (0..CONTEXT as u32).collect();
        let x = filled(self.device, positions.len(), q + 2 * kv, 25)?;
        for sequence in 0..SEQUENCES[SEQUENCES.len() - 1] as u32 {
            let step = step_of(self.device, &positions, &vec![sequence; positions.len()])?;
            for layer in 0..self.sizes.num_layers {
                let (keys, values) = (q..q + kv, q + kv..q + 2 * kv);
                self.device
                    .cache_write(&mut self.cache, layer, &x, keys, values, &step)?;
            }
        }
        Ok(())
    }

    /// Median seconds of a step.
    fn step_s(
        &mut self,
        positions: &[u32],
        sequences: &[u32],
        num_logits: usize,
    ) -> Result<f64, DeviceError> {
        let mut buffers = self.buffers(positions, sequences, num_logits)?;
        let mut run = |count: usize| {
            let start = Instant::now();
            for _ in 0..count {
                self.step(&mut buffers)?;
            }
            Ok::<f64, DeviceError>(start.elapsed().as_secs_f64() / count as f64)
        };
        let one_s = run(1)?.min(run(1)?).max(1e-7);
        let count = ((REPEAT_S / one_s) as usize).max(1);
        run(count)?;
        let times = (0..REPEATS).map(|_| run(count)).collect::<Result<_, _>>()?;
        Ok(quartiles(times).map_or(0.0, |[_, median, _]| median))
    }

    fn step(&mut self, buffers: &mut Buffers) -> Done {
        let device = self.device;
        let Buffers { x, h, h8, .. } = buffers;
        device.rms_norm_quantize(h8, h, x, &self.norm, EPS, SCALE)?;
        for layer in 0..self.blocks.len() {
            self.block(buffers, layer)?;
        }
        let Buffers {
            last, logits, last8, ..
        } = buffers;
        device.will_read(&self.blocks[0][0]);
        device.quantize(last8, last, SCALE)?;
        device.gemm(logits, Operand::Int8(last8), &self.head)
    }

    fn block(&mut self, buffers: &mut Buffers, layer: usize) -> Done {
        let (device, sizes) = (self.device, &self.sizes);
        let (q, kv) = (sizes.q(), sizes.kv());
        let [qkv_linear, out, up, down] = &self.blocks[layer];
        let next = self.blocks.get(layer + 1).map_or(&self.head, |next| &next[0]);
        let norm = (&self.norm, EPS);
        let Buffers {
            step,
            x,
            h,
            y,
            qkv,
            c,
            wide,
            f,
            angles,
            h8,
            c8,
            f8,
            ..
        } = buffers;
        device.will_read(out);
        device.gemm(qkv, Operand::Int8(h8), qkv_linear)?;
        let columns = [0..q, q..q + kv, q + kv..q + 2 * kv];
        let (cache, params) = (&mut self.cache, &self.attention);
        let angles = (sizes.head_dim, &*angles);
        device.rope_cache_write_attention_quantize(
            (c8, SCALE),
            c,
            cache,
            layer,
            qkv,
            columns,
            angles,
            params,
            step,
        )?;
        device.will_read(up);
        device.gemm_add_rms_norm_quantize(h8, x, (y, h), Operand::Int8(c8), out, norm, SCALE)?;
        device.will_read(down);
        let gate = (Activation::Silu, None);
        device.gemm_gated_quantize(f8, f, wide, Operand::Int8(h8), up, gate, SCALE)?;
        device.will_read(next);
        device.gemm_add_rms_norm_quantize(h8, x, (y, h), Operand::Int8(f8), down, norm, SCALE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dualgrain_cpu::{Isa, available};

    #[test]
    fn every_step_of_a_model_is_timed() {
        let isa = available().into_iter().next_back().unwrap_or(Isa::Portable);
        let device = CpuDevice::with_isa(1, isa).unwrap();
        let sizes = ModelSizes {
            num_layers: 2,
            ..SMALL
        };
        let timed = timed_model(&device, sizes).unwrap();
        assert!(timed.is_sound(), "{timed:?}");
        let sequences = timed.decode.iter().map(|step| step.sequences);
        assert!(sequences.eq(SEQUENCES), "{timed:?}");
    }
}
