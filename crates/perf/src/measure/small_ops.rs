//! The rates that a device reaches between products: the small operations of one block, one after the other. Where a model runs some of
//! them joined with each other or with products, as cards do, they are timed apart all the same, and the bytes that are counted are those
//! of the joined ones ([`BlockSizes::small_op_bytes`]).

use std::time::Instant;

use dualgrain_device::cases::Random;
use dualgrain_device::{
    Activation, ActivationScale, AttentionParams, CacheFormat, CacheShape, Device, DeviceError, Done,
    PAGE_TOKENS, StepLayout, StepLimits,
};

use crate::error::PerfError;
use crate::measure::times::quartiles;
use crate::small_ops::{BlockSizes, SMALL_OPS, SmallOpRates};

/// The model whose block is run, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workload {
    sizes: BlockSizes,
    head_dim: usize,
    /// Layers of the cache: together they are as far from the cores as those of a model.
    num_layers: usize,
    /// Tokens of a prompt, sequences that are decoded together, positions each of them sees.
    prompt: usize,
    sequences: usize,
    context: usize,
    /// Whether the gate is an operation of its own here; else it is a part of the product.
    gates: bool,
    /// Passes through all layers between two looks at the clock.
    passes: usize,
}

/// A block of a 1.1 B Llama, for CPUs.
pub(crate) const ON_CPU: Workload = Workload {
    sizes: BlockSizes {
        hidden: 2_048,
        q: 2_048,
        kv: 256,
        ffn: 5_632,
        gated: true,
    },
    head_dim: 64,
    num_layers: 22,
    prompt: 512,
    sequences: 4,
    context: 1_024,
    gates: false,
    passes: 1,
};

/// A block of an 8 B Llama, for cards.
#[cfg(feature = "cuda")]
pub(crate) const ON_CARD: Workload = Workload {
    sizes: BlockSizes {
        hidden: 4_096,
        q: 4_096,
        kv: 1_024,
        ffn: 14_336,
        gated: true,
    },
    head_dim: 128,
    num_layers: 32,
    prompt: 2_048,
    sequences: 64,
    // Two whole spans of attention and a short one, as after a prompt of 1,024 and some decoding.
    context: 1_088,
    gates: true,
    passes: 8,
};

/// Repetitions, each through all layers.
const REPEATS: usize = 5;

/// Measures with all threads of `device`.
///
/// # Errors
/// Memory that cannot be had.
pub(crate) fn measure<D: Device>(device: &D, workload: &Workload) -> Result<SmallOpRates, PerfError> {
    let Workload {
        sizes,
        prompt,
        sequences,
        context,
        ..
    } = *workload;
    let prompt_bytes = prompt as f64 * sizes.small_op_bytes(4.0, 1.0);
    let prompt_pairs = (prompt * (prompt + 1)) as f64 / 2.0;
    let decode_pairs = (sequences * context) as f64;
    let mut attention = Attention::new(device, workload)?;
    Ok(SmallOpRates {
        prompt_attention_ops_per_s: sizes.attention_ops(prompt_pairs) / attention.prompt_s()?,
        decode_attention_ops_per_s: sizes.attention_ops(decode_pairs) / attention.decode_s()?,
        bytes_per_s: prompt_bytes / RowOps::new(device, workload, prompt)?.block_s()?,
        start_s: RowOps::new(device, workload, 1)?.block_s()? / SMALL_OPS as f64,
    })
}

/// Median seconds of one layer's share of `pass`, which goes through all layers. A device that runs behind the host is waited for.
fn layer_s<D: Device>(
    device: &D,
    workload: &Workload,
    seen: &D::Matrix,
    mut pass: impl FnMut() -> Done,
) -> Result<f64, DeviceError> {
    let mut row = vec![0.0; workload.sizes.hidden];
    // The first passes make ready what a device records of a step.
    for _ in 0..3 {
        pass()?;
    }
    let times = (0..REPEATS).map(|_| {
        device.download(seen, 0..1, &mut row)?;
        let start = Instant::now();
        for _ in 0..workload.passes {
            pass()?;
        }
        device.download(seen, 0..1, &mut row)?;
        Ok(start.elapsed().as_secs_f64() / (workload.num_layers * workload.passes) as f64)
    });
    let times = times.collect::<Result<_, DeviceError>>()?;
    Ok(quartiles(times).map_or(0.0, |[_, median, _]| median))
}

fn filled<D: Device>(device: &D, rows: usize, columns: usize, seed: u64) -> Result<D::Matrix, DeviceError> {
    let mut matrix = device.matrix(rows, columns)?;
    device.upload(&mut matrix, &Random(seed).floats(rows * columns))?;
    Ok(matrix)
}

/// A step of one token of each of so many sequences, or of one sequence's tokens.
fn step_of<D: Device>(
    device: &D,
    workload: &Workload,
    positions: &[u32],
    sequences: &[u32],
) -> Result<D::Step, DeviceError> {
    let pages = workload.context.max(workload.prompt) / PAGE_TOKENS;
    let page_tables: Vec<Vec<u32>> = (0..workload.sequences)
        .map(|sequence| (0..pages).map(|page| (sequence * pages + page) as u32).collect())
        .collect();
    let mut step = device.step(StepLimits {
        tokens: positions.len(),
        sequences: workload.sequences,
        pages_per_sequence: pages,
    })?;
    let layout = StepLayout {
        positions,
        sequences,
        page_tables: &page_tables,
    };
    device.upload_step(&mut step, &layout)?;
    Ok(step)
}

/// Everything but attention.
struct RowOps<'a, D: Device> {
    device: &'a D,
    workload: &'a Workload,
    step: D::Step,
    x: D::Matrix,
    h: D::Matrix,
    y: D::Matrix,
    qkv: D::Matrix,
    wide: D::Matrix,
    f: D::Matrix,
    norm: D::Matrix,
    angles: D::Matrix,
    h8: D::Quantized,
    f8: D::Quantized,
}

impl<'a, D: Device> RowOps<'a, D> {
    fn new(device: &'a D, workload: &'a Workload, tokens: usize) -> Result<Self, DeviceError> {
        let BlockSizes {
            hidden, q, kv, ffn, ..
        } = workload.sizes;
        let filled = |rows, columns| filled(device, rows, columns, 17);
        let positions: Vec<u32> = (0..tokens as u32).collect();
        Ok(Self {
            device,
            workload,
            step: step_of(device, workload, &positions, &vec![0; tokens])?,
            x: filled(tokens, hidden)?,
            h: filled(tokens, hidden)?,
            y: filled(tokens, hidden)?,
            qkv: filled(tokens, q + 2 * kv)?,
            wide: filled(if workload.gates { tokens } else { 1 }, 2 * ffn)?,
            f: filled(tokens, ffn)?,
            norm: filled(1, hidden)?,
            angles: filled(tokens, workload.head_dim)?,
            h8: device.quantized(tokens, hidden)?,
            f8: device.quantized(tokens, ffn)?,
        })
    }

    fn block_s(mut self) -> Result<f64, DeviceError> {
        let (device, workload) = (self.device, self.workload);
        let seen = filled(device, 1, workload.sizes.hidden, 18)?;
        layer_s(device, workload, &seen, || self.pass())
    }

    fn pass(&mut self) -> Done {
        let (device, num_layers) = (self.device, self.workload.num_layers);
        let Self {
            workload,
            step,
            x,
            h,
            y,
            qkv,
            wide,
            f,
            norm,
            angles,
            h8,
            f8,
            ..
        } = self;
        let (q, kv) = (workload.sizes.q, workload.sizes.kv);
        let scale = ActivationScale::PerToken;
        device.run_step(step, &mut || {
            for _ in 0..num_layers {
                for _ in 0..2 {
                    device.rms_norm_quantize(h8, h, x, norm, 1e-5, scale)?;
                }
                device.rope(qkv, 0..q + kv, workload.head_dim, angles)?;
                // The output of attention is as wide as what a norm puts out.
                device.quantize(h8, y, scale)?;
                if workload.gates {
                    device.gated(f, wide, Activation::Silu)?;
                }
                device.quantize(f8, f, scale)?;
            }
            Ok(())
        })
    }
}

/// Attention over an INT8 cache, with the writes to it.
struct Attention<'a, D: Device> {
    device: &'a D,
    workload: &'a Workload,
    cache: D::Cache,
    params: AttentionParams,
}

impl<'a, D: Device> Attention<'a, D> {
    fn new(device: &'a D, workload: &'a Workload) -> Result<Self, PerfError> {
        let pages = workload.context.max(workload.prompt) / PAGE_TOKENS;
        let shape = CacheShape {
            num_layers: workload.num_layers,
            num_kv_heads: workload.sizes.kv / workload.head_dim,
            head_dim: workload.head_dim,
            num_pages: workload.sequences * pages,
        };
        Ok(Self {
            device,
            workload,
            cache: device.cache(shape, &CacheFormat::Int8)?,
            params: AttentionParams {
                num_heads: workload.sizes.q / workload.head_dim,
                scale: 1.0 / (workload.head_dim as f32).sqrt(),
                sliding_window: None,
                alibi_slopes: None,
            },
        })
    }

    fn prompt_s(&mut self) -> Result<f64, DeviceError> {
        let positions: Vec<u32> = (0..self.workload.prompt as u32).collect();
        self.step_s(&positions, &vec![0; positions.len()])
    }

    fn decode_s(&mut self) -> Result<f64, DeviceError> {
        let sequences: Vec<u32> = (0..self.workload.sequences as u32).collect();
        self.step_s(
            &vec![self.workload.context as u32 - 1; sequences.len()],
            &sequences,
        )
    }

    fn step_s(&mut self, positions: &[u32], sequences: &[u32]) -> Result<f64, DeviceError> {
        let (device, workload) = (self.device, self.workload);
        let BlockSizes { q, kv, .. } = workload.sizes;
        let step = step_of(device, workload, positions, sequences)?;
        let x = filled(device, positions.len(), q + 2 * kv, 19)?;
        let mut out = device.matrix(positions.len(), q)?;
        let seen = filled(device, 1, workload.sizes.hidden, 18)?;
        let Self { cache, params, .. } = self;
        layer_s(device, workload, &seen, || {
            device.run_step(&step, &mut || {
                for layer in 0..workload.num_layers {
                    device.cache_write(cache, layer, &x, q..q + kv, q + kv..q + 2 * kv, &step)?;
                    device.attention(&mut out, &x, 0..q, cache, layer, params, &step)?;
                }
                Ok(())
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dualgrain_cpu::{CpuDevice, Isa, available};

    #[test]
    fn every_rate_is_measured() {
        let isa = available().into_iter().next_back().unwrap_or(Isa::Portable);
        let device = CpuDevice::with_isa(1, isa).unwrap();
        let rates = measure(&device, &ON_CPU).unwrap();
        let all = [
            rates.prompt_attention_ops_per_s,
            rates.decode_attention_ops_per_s,
            rates.bytes_per_s,
            rates.start_s,
        ];
        assert!(
            all.iter().all(|rate| rate.is_finite() && *rate > 0.0),
            "{rates:?}"
        );
    }
}
