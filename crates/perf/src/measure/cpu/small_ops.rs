//! The rates that a CPU reaches between products: the small operations of one block, timed in the order in which a model
//! runs them.

use std::time::Instant;

use dualgrain_cpu::{CpuDevice, Matrix, Quantized};
use dualgrain_device::{
    ActivationScale, AttentionParams, CacheFormat, CacheShape, Device, DeviceError, Done, PAGE_TOKENS,
    StepLayout, StepLimits,
};

use super::operands::floats;
use crate::error::PerfError;
use crate::measure::times::quartiles;
use crate::small_ops::{BlockSizes, SMALL_OPS, SmallOpRates};

/// A block of a 1.1 B Llama.
const SIZES: BlockSizes = BlockSizes {
    hidden: 2_048,
    q: 2_048,
    kv: 256,
    ffn: 5_632,
    gated: true,
};
const HEAD_DIM: usize = 64;
/// Layers of its cache: together they are as far from the cores as those of a model.
const NUM_LAYERS: usize = 22;
/// Tokens of a prompt, sequences that are decoded together, positions each of them sees.
const PROMPT: usize = 512;
const SEQUENCES: usize = 4;
const CONTEXT: usize = 1_024;
/// Repetitions, each through all layers.
const REPEATS: usize = 5;

/// Measures with all threads of `device`.
///
/// # Errors
/// Memory that cannot be had.
pub(crate) fn measure(device: &CpuDevice) -> Result<SmallOpRates, PerfError> {
    let prompt_bytes = PROMPT as f64 * SIZES.small_op_bytes(4.0, 1.0);
    let prompt_pairs = (PROMPT * (PROMPT + 1)) as f64 / 2.0;
    let decode_pairs = (SEQUENCES * CONTEXT) as f64;
    let mut attention = Attention::new(device)?;
    Ok(SmallOpRates {
        prompt_attention_ops_per_s: SIZES.attention_ops(prompt_pairs) / attention.prompt_s()?,
        decode_attention_ops_per_s: SIZES.attention_ops(decode_pairs) / attention.decode_s()?,
        bytes_per_s: prompt_bytes / RowOps::new(device, PROMPT)?.block_s()?,
        start_s: RowOps::new(device, 1)?.block_s()? / SMALL_OPS as f64,
    })
}

/// Median seconds of one layer's share of `pass`, which goes through all layers.
fn layer_s(mut pass: impl FnMut() -> Done) -> Result<f64, DeviceError> {
    pass()?;
    let times = (0..REPEATS).map(|_| {
        let start = Instant::now();
        pass()?;
        Ok(start.elapsed().as_secs_f64() / NUM_LAYERS as f64)
    });
    let times = times.collect::<Result<_, DeviceError>>()?;
    Ok(quartiles(times).map_or(0.0, |[_, median, _]| median))
}

/// Everything but attention.
struct RowOps<'a> {
    device: &'a CpuDevice,
    x: Matrix,
    h: Matrix,
    y: Matrix,
    qkv: Matrix,
    f: Matrix,
    norm: Matrix,
    angles: Matrix,
    h8: Quantized,
    f8: Quantized,
}

impl<'a> RowOps<'a> {
    fn new(device: &'a CpuDevice, tokens: usize) -> Result<Self, DeviceError> {
        let BlockSizes {
            hidden, q, kv, ffn, ..
        } = SIZES;
        let filled = |rows: usize, columns: usize| {
            let mut matrix = device.matrix(rows, columns)?;
            device.upload(&mut matrix, &floats(rows * columns, 17))?;
            Ok(matrix)
        };
        Ok(Self {
            device,
            x: filled(tokens, hidden)?,
            h: filled(tokens, hidden)?,
            y: filled(tokens, hidden)?,
            qkv: filled(tokens, q + 2 * kv)?,
            f: filled(tokens, ffn)?,
            norm: filled(1, hidden)?,
            angles: filled(tokens, HEAD_DIM)?,
            h8: device.quantized(tokens, hidden)?,
            f8: device.quantized(tokens, ffn)?,
        })
    }

    fn block_s(mut self) -> Result<f64, DeviceError> {
        layer_s(|| (0..NUM_LAYERS).try_for_each(|_| self.block()))
    }

    /// What a block runs; the gate and the sums with the stream are parts of the products before them.
    fn block(&mut self) -> Done {
        let device = self.device;
        for _ in 0..2 {
            let scale = ActivationScale::PerToken;
            device.rms_norm_quantize(&mut self.h8, &mut self.h, &self.x, &self.norm, 1e-5, scale)?;
        }
        device.rope(&mut self.qkv, 0..SIZES.q + SIZES.kv, HEAD_DIM, &self.angles)?;
        // The output of attention is as wide as what a norm puts out.
        device.quantize(&mut self.h8, &self.y, ActivationScale::PerToken)?;
        device.quantize(&mut self.f8, &self.f, ActivationScale::PerToken)
    }
}

/// Attention over an INT8 cache, with the writes to it.
struct Attention<'a> {
    device: &'a CpuDevice,
    cache: <CpuDevice as Device>::Cache,
    page_tables: Vec<Vec<u32>>,
    params: AttentionParams,
}

impl<'a> Attention<'a> {
    fn new(device: &'a CpuDevice) -> Result<Self, PerfError> {
        let pages = CONTEXT / PAGE_TOKENS;
        let shape = CacheShape {
            num_layers: NUM_LAYERS,
            num_kv_heads: SIZES.kv / HEAD_DIM,
            head_dim: HEAD_DIM,
            num_pages: SEQUENCES * pages,
        };
        let table = |sequence: usize| (sequence * pages..(sequence + 1) * pages).map(|page| page as u32);
        Ok(Self {
            device,
            cache: device.cache(shape, &CacheFormat::Int8)?,
            page_tables: (0..SEQUENCES).map(|sequence| table(sequence).collect()).collect(),
            params: AttentionParams {
                num_heads: SIZES.q / HEAD_DIM,
                scale: 1.0 / (HEAD_DIM as f32).sqrt(),
                sliding_window: None,
                alibi_slopes: None,
            },
        })
    }

    fn prompt_s(&mut self) -> Result<f64, DeviceError> {
        let positions: Vec<u32> = (0..PROMPT as u32).collect();
        self.step_s(&positions, &[0; PROMPT])
    }

    fn decode_s(&mut self) -> Result<f64, DeviceError> {
        let sequences: Vec<u32> = (0..SEQUENCES as u32).collect();
        self.step_s(&[CONTEXT as u32 - 1; SEQUENCES], &sequences)
    }

    fn step_s(&mut self, positions: &[u32], sequences: &[u32]) -> Result<f64, DeviceError> {
        let (device, BlockSizes { q, kv, .. }) = (self.device, SIZES);
        let layout = StepLayout {
            positions,
            sequences,
            page_tables: &self.page_tables,
        };
        let mut step = device.step(StepLimits {
            tokens: positions.len(),
            sequences: SEQUENCES,
            pages_per_sequence: CONTEXT / PAGE_TOKENS,
        })?;
        device.upload_step(&mut step, &layout)?;
        let mut x = device.matrix(positions.len(), q + 2 * kv)?;
        device.upload(&mut x, &floats(positions.len() * (q + 2 * kv), 19))?;
        let mut out = device.matrix(positions.len(), q)?;
        layer_s(|| {
            for layer in 0..NUM_LAYERS {
                device.cache_write(&mut self.cache, layer, &x, q..q + kv, q + kv..q + 2 * kv, &step)?;
                device.attention(&mut out, &x, 0..q, &self.cache, layer, &self.params, &step)?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dualgrain_cpu::{Isa, available};

    #[test]
    fn every_rate_is_measured() {
        let isa = available().into_iter().next_back().unwrap_or(Isa::Portable);
        let device = CpuDevice::with_isa(1, isa).unwrap();
        let rates = measure(&device).unwrap();
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
