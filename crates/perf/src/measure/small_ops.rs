//! The rates that a device reaches between products: the small operations of one block, one after the other. Where a model runs some of
//! them joined with each other or with products, as cards do, they are timed apart all the same: the rate counts the bytes that they move
//! apart, and a model is then priced by the bytes of the joined ones ([`BlockSizes::small_op_bytes`]).

use std::time::{Duration, Instant};

use dualgrain_device::cases::Random;
use dualgrain_device::{
    Activation, ActivationScale, AttentionParams, CacheFormat, CacheShape, Device, DeviceError, Done,
    PAGE_TOKENS, StepLayout, StepLimits,
};

use crate::error::PerfError;
use crate::measure::times::quartiles;
use crate::small_ops::{BlockSizes, SMALL_OPS, SmallOpPower, SmallOpRates};

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
    /// Whether decode is bound by reading the cache, as on cards. Its start is then timed apart: one sequence besides many tells it.
    reads_bind_decode: bool,
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
    reads_bind_decode: false,
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
    sequences: 128,
    // Two whole spans of attention and a short one, as after a prompt of 1,024 and some decoding.
    context: 1_088,
    reads_bind_decode: true,
    gates: true,
    passes: 8,
};

/// Repetitions, each through all layers.
const REPEATS: usize = 5;

/// What tells the mean power of a span of time, in watts; `None` of a span that is too short.
pub(crate) type PowerOf<'a> = dyn Fn(Instant, Instant) -> Option<f64> + 'a;

/// As long as a device is kept busy for its power: some ten movements of a card's counter.
const POWER_SPAN: Duration = Duration::from_millis(1_200);

/// Measures with all threads of `device`; its power too, where `power_of` tells it.
///
/// # Errors
/// Memory that cannot be had.
pub(crate) fn measure<D: Device>(
    device: &D,
    workload: &Workload,
    power_of: Option<&PowerOf<'_>>,
) -> Result<SmallOpRates, PerfError> {
    let Workload {
        sizes,
        prompt,
        sequences,
        context,
        ..
    } = *workload;
    let clock = Clock {
        device,
        workload,
        power_of,
    };
    let rows = RowOps::new(device, workload, prompt)?.block(&clock)?;
    let start = RowOps::new(device, workload, 1)?.block(&clock)?;
    let mut attention = Attention::new(device, workload)?;
    let of_prompt = attention.prompt(&clock)?;
    let many = attention.decode(&clock, sequences)?;
    let one = match workload.reads_bind_decode {
        true => Some(attention.decode(&clock, 1)?),
        false => None,
    };
    let prompt_pairs = (prompt * (prompt + 1)) as f64 / 2.0;
    let (decode_s_per_pair, decode_attention_start_s) = line(
        one.map(|one| (context as f64, one.time_s)),
        ((sequences * context) as f64, many.time_s),
    );
    let if_bound = |by_reads: bool, rate: f64| {
        if by_reads == workload.reads_bind_decode {
            rate
        } else {
            0.0
        }
    };
    Ok(SmallOpRates {
        prompt_attention_ops_per_s: sizes.attention_ops(prompt_pairs) / of_prompt.time_s,
        decode_attention_ops_per_s: if_bound(false, sizes.attention_ops(1.0) / decode_s_per_pair),
        decode_cache_bytes_per_s: if_bound(true, workload.position_bytes() / decode_s_per_pair),
        decode_attention_start_s,
        bytes_per_s: prompt as f64 * workload.row_bytes() / (rows.time_s - start.time_s),
        start_s: start.time_s / SMALL_OPS as f64,
        power: power(of_prompt, many, rows, start),
    })
}

impl Workload {
    /// Bytes of one position in a layer of the cache.
    fn position_bytes(&self) -> f64 {
        CacheFormat::Int8.bytes_per_token(self.sizes.kv / self.head_dim, self.head_dim) as f64
    }

    /// Bytes a token moves in [`RowOps::pass`].
    fn row_bytes(&self) -> f64 {
        let BlockSizes {
            hidden, q, kv, ffn, ..
        } = self.sizes;
        if !self.gates {
            return self.sizes.small_op_bytes(4.0, 1.0);
        }
        // Two norms and two quantizations read floats and write codes; rotation and gate read and write floats.
        let (read_write, codes) = (8 * (q + kv) + 12 * ffn, 5 * (2 * hidden + hidden + ffn));
        (read_write + codes) as f64
    }
}

/// Slope and start of the line through `(x, y)` of few and of many; through 0 where there are no few.
fn line(few: Option<(f64, f64)>, many: (f64, f64)) -> (f64, f64) {
    let Some(few) = few else {
        return (many.1 / many.0, 0.0);
    };
    let slope = (many.1 - few.1) / (many.0 - few.0);
    (slope, (few.1 - slope * few.0).max(0.0))
}

fn power(prompt: Pace, decode: Pace, rows: Pace, start: Pace) -> Option<SmallOpPower> {
    Some(SmallOpPower {
        prompt_attention_w: prompt.power_w?,
        decode_attention_w: decode.power_w?,
        bytes_w: rows.power_w?,
        start_w: start.power_w?,
    })
}

/// How long one layer's share of a pass takes, and what the device draws meanwhile.
#[derive(Clone, Copy)]
struct Pace {
    time_s: f64,
    power_w: Option<f64>,
}

/// Times passes through all layers.
struct Clock<'a, D: Device> {
    device: &'a D,
    workload: &'a Workload,
    power_of: Option<&'a PowerOf<'a>>,
}

impl<D: Device> Clock<'_, D> {
    /// Median seconds of one layer's share of `pass`, and its power. A device that runs behind the host is waited for.
    fn pace(&self, seen: &D::Matrix, mut pass: impl FnMut() -> Done) -> Result<Pace, DeviceError> {
        // The first passes make ready what a device records of a step.
        for _ in 0..3 {
            pass()?;
        }
        let times = (0..REPEATS).map(|_| self.layer_s(seen, &mut pass));
        let times = times.collect::<Result<_, DeviceError>>()?;
        let time_s = quartiles(times).map_or(0.0, |[_, median, _]| median);
        let power_w = match self.power_of {
            Some(power_of) => {
                let start = Instant::now();
                while start.elapsed() < POWER_SPAN {
                    self.layer_s(seen, &mut pass)?;
                }
                power_of(start, Instant::now())
            }
            None => None,
        };
        Ok(Pace { time_s, power_w })
    }

    fn layer_s(&self, seen: &D::Matrix, pass: &mut impl FnMut() -> Done) -> Result<f64, DeviceError> {
        let mut row = vec![0.0; self.workload.sizes.hidden];
        self.device.download(seen, 0..1, &mut row)?;
        let start = Instant::now();
        for _ in 0..self.workload.passes {
            pass()?;
        }
        self.device.download(seen, 0..1, &mut row)?;
        let num_layers = self.workload.num_layers * self.workload.passes;
        Ok(start.elapsed().as_secs_f64() / num_layers as f64)
    }
}

pub(crate) fn filled<D: Device>(
    device: &D,
    rows: usize,
    columns: usize,
    seed: u64,
) -> Result<D::Matrix, DeviceError> {
    let mut matrix = device.matrix(rows, columns)?;
    device.upload(&mut matrix, &Random(seed).floats(rows * columns))?;
    Ok(matrix)
}

/// A step of one token of each of so many sequences, or of one sequence's tokens.
pub(crate) fn step_of<D: Device>(
    device: &D,
    positions: &[u32],
    sequences: &[u32],
) -> Result<D::Step, DeviceError> {
    // Sequences see as many positions each, so their tables are as long as what the longest sees.
    let pages = positions
        .iter()
        .max()
        .map_or(1, |&last| last as usize / PAGE_TOKENS + 1);
    let num_sequences = sequences.iter().max().map_or(1, |&last| last as usize + 1);
    let page_tables: Vec<Vec<u32>> = (0..num_sequences)
        .map(|sequence| (0..pages).map(|page| (sequence * pages + page) as u32).collect())
        .collect();
    let mut step = device.step(StepLimits {
        tokens: positions.len(),
        sequences: num_sequences,
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
            step: step_of(device, &positions, &vec![0; tokens])?,
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

    fn block(mut self, clock: &Clock<'_, D>) -> Result<Pace, DeviceError> {
        let seen = filled(self.device, 1, self.workload.sizes.hidden, 18)?;
        clock.pace(&seen, || self.pass())
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
        let pages = (workload.sequences * workload.context.div_ceil(PAGE_TOKENS))
            .max(workload.prompt.div_ceil(PAGE_TOKENS));
        let shape = CacheShape {
            num_layers: workload.num_layers,
            num_kv_heads: workload.sizes.kv / workload.head_dim,
            head_dim: workload.head_dim,
            num_pages: pages,
        };
        Ok(Self {
            device,
            workload,
            cache: device.cache(shape, &CacheFormat::Int8)?,
            params: AttentionParams {
                num_heads: workload.sizes.q / workload.head_dim,
                scale: 1.0 / (workload.head_dim as f32).sqrt(),
                sliding_window: None,
                soft_cap: None,
                alibi_slopes: None,
                sinks: None,
            },
        })
    }

    fn prompt(&mut self, clock: &Clock<'_, D>) -> Result<Pace, DeviceError> {
        let positions: Vec<u32> = (0..self.workload.prompt as u32).collect();
        self.step(clock, &positions, &vec![0; positions.len()])
    }

    fn decode(&mut self, clock: &Clock<'_, D>, num_sequences: usize) -> Result<Pace, DeviceError> {
        self.fill(num_sequences)?;
        let sequences: Vec<u32> = (0..num_sequences as u32).collect();
        let positions = vec![self.workload.context as u32 - 1; num_sequences];
        self.step(clock, &positions, &sequences)
    }

    /// Writes every position that decode reads: memory that nobody wrote holds zeros, and zeros draw less power than a cache.
    fn fill(&mut self, num_sequences: usize) -> Done {
        let (device, workload) = (self.device, self.workload);
        let BlockSizes { q, kv, .. } = workload.sizes;
        let positions: Vec<u32> = (0..workload.context as u32).collect();
        let x = filled(device, positions.len(), q + 2 * kv, 20)?;
        for sequence in 0..num_sequences as u32 {
            let step = step_of(device, &positions, &vec![sequence; positions.len()])?;
            for layer in 0..workload.num_layers {
                device.cache_write(&mut self.cache, layer, &x, q..q + kv, q + kv..q + 2 * kv, &step)?;
            }
        }
        Ok(())
    }

    fn step(
        &mut self,
        clock: &Clock<'_, D>,
        positions: &[u32],
        sequences: &[u32],
    ) -> Result<Pace, DeviceError> {
        let (device, workload) = (self.device, self.workload);
        let BlockSizes { q, kv, .. } = workload.sizes;
        let step = step_of(device, positions, sequences)?;
        let x = filled(device, positions.len(), q + 2 * kv, 19)?;
        let mut out = device.matrix(positions.len(), q)?;
        let seen = filled(device, 1, workload.sizes.hidden, 18)?;
        let Self { cache, params, .. } = self;
        clock.pace(&seen, || {
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
        // A counter that shows 100 W of any span.
        let rates = measure(&device, &ON_CPU, Some(&|_, _| Some(100.0))).unwrap();
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
        assert_eq!(rates.power.map(|power| power.start_w), Some(100.0));
    }

    #[test]
    fn the_start_of_attention_is_what_one_sequence_takes_beyond_its_share() {
        let (slope, start) = line(Some((1_000.0, 5.0)), (101_000.0, 55.0));
        assert!(
            (slope - 5e-4).abs() < 1e-12 && (start - 4.5).abs() < 1e-9,
            "{slope} {start}"
        );
        assert_eq!(line(None, (100.0, 50.0)), (0.5, 0.0));
        assert_eq!(line(Some((100.0, 1.0)), (200.0, 50.0)).1, 0.0, "no start below 0");
    }
}
