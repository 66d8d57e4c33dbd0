//! What a run will need, said before it starts, from the configuration alone: memory, disk, time; and what the
//! finished model will need to run, beside a model with 4-bit weights and 16-bit activations.

use std::path::Path;

use std::time::{Duration, Instant};

use dualgrain_device::{DeviceError, Statistics};
use dualgrain_engine::{
    BlockSpec, LinearId, ModelConfig, Position, Role, angles_bytes, kind_of_block, kinds_of_blocks,
    scratch_bytes,
};
use dualgrain_format::checkpoint::OutputPlace;
use dualgrain_format::{CacheScheme, GroupSize, LinearScheme, int4};
use serde::Serialize;

use crate::calibrate::hidden_states::HiddenStates;
use crate::calibrate::multiply_adds::experts_at_once;
use crate::calibrate::windows::{Windows, held_out_tokens};
use crate::error::QuantError;
use crate::methods::buffers::{GROUP_BUFFER_BYTES, ROW_BUFFER_BYTES};
use crate::methods::dgq::approximate_gram::RANK;
use crate::methods::search::Search;
use crate::options::{JournalPolicy, QuantJob, QuantOptions};
use crate::run::checks::{check_model, look_at_target};
use crate::run::correction::corrects;
use crate::run::journal::Journal;
use crate::run::multiply_adds::run_multiply_adds;
use crate::stored_bytes::{float_bytes, stored_bytes};

/// Program, thread stacks, packed blocks that kernels keep, allocator slack (64 MB measured on small models).
const PROGRAM_BYTES: u64 = 100_000_000;

/// Bytes a token of the calibration text takes while it is encoded (measured with the tokenizers crate: 230), and
/// what a tokenizer takes for an entry of its vocabulary.
const ENCODING_BYTES_PER_TOKEN: u64 = 300;
const TOKENIZER_BYTES_PER_ENTRY: u64 = 1_500;

/// Bits a weight that a budget can be spent on: INT8 with a scale a row.
const MOST_BITS: f64 = 8.1;

/// How long the machine is measured.
const MEASURED_TIME: Duration = Duration::from_millis(250);

/// Side of the Gram matrix that measures the machine.
const MEASURED_SIDE: usize = 768;

/// The plan of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Resident memory the run stays within.
    pub peak_memory_bytes: u64,
    /// What makes it up at its highest point.
    pub memory_parts: Vec<MemoryPart>,
    /// Size of the finished folder's tensors.
    pub output_bytes: u64,
    /// Disk the run needs besides, until it ends: journal and spilled activations.
    pub scratch_disk_bytes: u64,
    /// Whether the calibration activations go to disk.
    pub spills: bool,
    /// Estimated time on this machine with these threads.
    pub time_s: f64,
    /// Memory to run the finished model, against 4-bit weights with 16-bit activations and cache.
    pub inference: Vec<InferenceMemory>,
}

/// A part of the memory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemoryPart {
    /// What it is for.
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
}

/// Memory to run a model of this shape.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct InferenceMemory {
    /// Sequences at once.
    pub batch: usize,
    /// Tokens in each.
    pub context_tokens: usize,
    /// This model.
    pub w4a8_bytes: u64,
    /// 4-bit weights with fp16 group scales and zeros, fp16 cache.
    pub a16w4_bytes: u64,
}

impl InferenceMemory {
    /// How many times more the other takes.
    pub fn ratio(&self) -> f64 {
        self.a16w4_bytes as f64 / self.w4a8_bytes as f64
    }
}

/// Plans a run on `num_tokens` tokens of calibration text (`None`: as many as the windows need).
///
/// # Errors
/// What the run itself would refuse before it reads the text; a calibration text without tokens.
pub fn plan<D: Statistics>(
    device: &D,
    config: &ModelConfig,
    job: &QuantJob,
    num_tokens: Option<usize>,
) -> Result<Plan, QuantError> {
    let options = &job.options;
    let num_tokens = num_tokens.unwrap_or(options.num_windows * options.window_tokens);
    let windows = check_model(job, config, num_tokens)?;
    let place = look_at_target(job)?;
    Journal::check_unused(&place.journal(), job.journal)?;
    check_disk::<D>((config, &windows, num_tokens), job, &place)?;
    let sizes = Sizes::new::<D>(config, options, &windows, num_tokens);
    let spills = sizes.hidden_states > job.spill_above_bytes;
    let memory_parts = sizes.peak_parts(job.spill_above_bytes);
    let multiply_adds = run_multiply_adds(config, options, &windows, &*options.method::<D>());
    Ok(Plan {
        peak_memory_bytes: memory_parts.iter().map(|part| part.size_bytes).sum(),
        memory_parts,
        output_bytes: sizes.blocks + sizes.outside,
        scratch_disk_bytes: sizes.scratch_disk(job.spill_above_bytes),
        spills,
        time_s: multiply_adds as f64 / multiply_adds_per_s(device)? * time_overhead(config),
        inference: [1, 32]
            .map(|batch| sizes.inference(config, options, batch))
            .to_vec(),
    })
}

/// Refuses a run for whose result or journal the disk has no room: what is known beforehand should not be found out after hours.
///
/// # Errors
/// What is needed and what is free.
pub(crate) fn check_disk<D: Statistics>(
    (config, windows, num_tokens): (&ModelConfig, &Windows, usize),
    job: &QuantJob,
    place: &OutputPlace,
) -> Result<(), QuantError> {
    let sizes = Sizes::new::<D>(config, &job.options, windows, num_tokens);
    let needed_bytes = sizes.blocks + sizes.outside + sizes.scratch_disk(job.spill_above_bytes);
    // What an interrupted run has left is not free any more, and a resumed one does not write it again.
    let held_bytes = match job.journal {
        JournalPolicy::Resume => size_of_files(&place.journal()),
        JournalPolicy::Refuse | JournalPolicy::Restart => 0,
    };
    let needed_bytes = needed_bytes.saturating_sub(held_bytes);
    match place.free_bytes() {
        Some(free_bytes) if free_bytes < needed_bytes => Err(QuantError::DiskFull {
            path: place.target().to_path_buf(),
            needed_bytes,
            free_bytes,
        }),
        _ => Ok(()),
    }
}

/// Bytes of the files in a folder; 0 where there is none.
fn size_of_files(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| entry.metadata().ok());
    sizes.filter(|data| data.is_file()).map(|data| data.len()).sum()
}

/// Sizes in bytes.
struct Sizes {
    caller: u64,
    hidden_states: u64,
    residual: u64,
    scratch: u64,
    /// The token (and position) embedding as stored.
    embedding: u64,
    /// Everything outside the blocks as stored.
    outside: u64,
    /// The embedding once more, where it is rotated.
    rotated_embedding: u64,
    /// A block of the original model beside the quantized one, where weights are corrected.
    original: u64,
    /// The largest block of the finished model, and all of them.
    block: u64,
    blocks: u64,
    /// All blocks with fp16 group scales and zeros where weights have four bits.
    blocks_a16w4: u64,
    /// The most expensive linear: its Gram matrix with the blocks cut from it, and its weights.
    gram: u64,
    weights: u64,
    buffers: u64,
    /// While the effect of rounding is measured, if it is: the streams of all linears, and what is there beside them.
    rounded_streams: u64,
    measuring: u64,
}

impl Sizes {
    fn new<D: Statistics>(
        config: &ModelConfig,
        options: &QuantOptions,
        windows: &Windows,
        num_tokens: usize,
    ) -> Self {
        let stored = float_bytes(config);
        let hidden = config.hidden_size as u64;
        let tokens = windows.len() * windows.window_len();
        let embedding = embedding_bytes(config);
        let linears = all_linears(config, options);
        let corrects = corrects(options, windows);
        let streams = 1 + u64::from(corrects);
        let tokens_of_drift = if corrects { windows.window_len() } else { 0 };
        let largest = linears.iter().flatten().map(|&(shape, scheme)| {
            let group_size = scheme.group_size().unwrap_or(options.group_size);
            (
                gram_bytes(shape.1, group_size) + compensation_bytes(shape, options.search, tokens_of_drift),
                weight_bytes(shape, group_size, stored) + turned_bytes(shape, options),
            )
        });
        let largest = largest.max_by_key(|(gram, weights)| gram + weights);
        let (gram, weights) = largest.unwrap_or_default();
        let gram = gram + expert_gram_bytes(config);
        let norms = norm_bytes(config);
        let sums = |bytes: fn((usize, usize), LinearScheme, u64) -> u64| {
            let of_linear = move |&(shape, scheme): &_| bytes(shape, scheme, stored);
            let blocks = linears.iter();
            blocks.map(move |block| block.iter().map(of_linear).sum::<u64>() + norms)
        };
        let (blocks, blocks_a16w4) = (sums(stored_bytes), sums(a16w4_bytes));
        Self {
            caller: PROGRAM_BYTES
                + num_tokens as u64 * ENCODING_BYTES_PER_TOKEN
                + config.vocab_size as u64 * TOKENIZER_BYTES_PER_ENTRY,
            hidden_states: streams * HiddenStates::<D>::size_bytes(config, windows),
            residual: tokens as u64 * hidden * 4,
            scratch: streams * window_buffer_bytes(config, windows.window_len()),
            original: u64::from(corrects) * original_block_bytes(config, options),
            rotated_embedding: u64::from(options.rotate) * embedding,
            embedding,
            outside: embedding + head_bytes(config, options) + hidden * 4,
            block: blocks.clone().max().unwrap_or_default(),
            // A budget is spent, whatever it is spent on.
            blocks: match options.bits {
                Some(bits) => {
                    (num_weights(&linears) as f64 * bits.min(MOST_BITS) / 8.0) as u64
                        + norms * linears.len() as u64
                }
                None => blocks.sum(),
            },
            rounded_streams: u64::from(options.bits.is_some()) * rounded_bytes::<D>(config, windows),
            measuring: u64::from(options.bits.is_some()) * measuring_bytes(config, options, windows),
            blocks_a16w4: blocks_a16w4.sum(),
            gram,
            weights,
            buffers: (3 * GROUP_BUFFER_BYTES + 3 * ROW_BUFFER_BYTES) as u64,
        }
    }

    /// Disk for journal and activations that are spilled.
    fn scratch_disk(&self, spill_above_bytes: u64) -> u64 {
        let spilled = |rows: u64| if rows > spill_above_bytes { rows } else { 0 };
        let run = self.blocks + 3 * self.residual + spilled(self.hidden_states);
        run.max(spilled(self.rounded_streams))
    }

    /// The parts of memory at the highest point of the run.
    fn peak_parts(&self, spill_above_bytes: u64) -> Vec<MemoryPart> {
        let in_memory = |rows: u64| if rows > spill_above_bytes { 0 } else { rows };
        let part = |name: &str, size_bytes| MemoryPart {
            name: name.to_owned(),
            size_bytes,
        };
        let hidden_states = in_memory(self.hidden_states);
        // At the start the embedding is there beside its mapped pages, at the end a block beside its copy and the
        // mapped pages of the largest tensor outside the blocks; in between a linear with its statistics.
        let start = 2 * self.embedding + self.rotated_embedding + self.weights;
        let middle = self.gram + self.weights + self.buffers + 3 * self.block + self.original;
        let end = 3 * self.block + 2 * self.embedding + self.rotated_embedding;
        let mut parts = vec![
            part("program, tokenizer, calibration text", self.caller),
            part("calibration activations", hidden_states),
            part("buffers of a window", self.scratch),
        ];
        if middle >= start.max(end) {
            parts.push(part("Gram matrix of the largest linear input", self.gram));
            parts.push(part("float weights of a linear", self.weights));
            parts.push(part("candidates of the search", self.buffers));
            parts.push(part("quantized block", 3 * self.block));
            if self.original > 0 {
                parts.push(part("original block beside it", self.original));
            }
        } else {
            parts.push(part("embedding", start.max(end)));
        }
        let others: u64 = parts.iter().skip(1).map(|part| part.size_bytes).sum();
        let rounded_streams = in_memory(self.rounded_streams);
        if self.measuring + rounded_streams > others {
            parts.truncate(1);
            parts.push(part("streams of rounded linears", rounded_streams));
            parts.push(part("predictions while rounding is measured", self.measuring));
        }
        parts
    }

    fn inference(&self, config: &ModelConfig, options: &QuantOptions, batch: usize) -> InferenceMemory {
        const CONTEXT_TOKENS: usize = 2048;
        let tokens = (batch * CONTEXT_TOKENS * config.num_layers) as u64;
        let (kv, heads) = (config.kv_size() as u64, config.num_kv_heads as u64);
        let float_cache = tokens * 2 * kv * 2;
        let cache = match options.kv_cache {
            CacheScheme::F16 => float_cache,
            CacheScheme::Int8 => tokens * 2 * (kv + heads * 4),
            CacheScheme::Int8Static => tokens * 2 * kv,
        };
        InferenceMemory {
            batch,
            context_tokens: CONTEXT_TOKENS,
            w4a8_bytes: self.blocks + self.outside + cache,
            a16w4_bytes: self.blocks_a16w4 + self.outside + float_cache,
        }
    }
}

/// The token (and position) embedding as stored.
fn embedding_bytes(config: &ModelConfig) -> u64 {
    let positions = match config.position {
        Position::Learned { offset } => config.max_positions + offset,
        _ => 0,
    };
    (config.vocab_size + positions) as u64 * config.hidden_size as u64 * float_bytes(config)
}

fn head_bytes(config: &ModelConfig, options: &QuantOptions) -> u64 {
    match options.lm_head {
        LinearScheme::Float if config.tie_embeddings && !options.rotate => 0,
        scheme => stored_bytes(
            (config.vocab_size, config.hidden_size),
            scheme,
            float_bytes(config),
        ),
    }
}

/// The norms of a block and its router, in f32.
fn norm_bytes(config: &ModelConfig) -> u64 {
    let block = BlockSpec::new(config, 0);
    let elements = block.norms().map(|norm| norm.len * (1 + usize::from(norm.bias)));
    let router = config
        .mixture
        .as_ref()
        .map_or(0, |mixture| (mixture.num_experts + 1) * config.hidden_size);
    4 * (elements.sum::<usize>() + router) as u64
}

fn gram_bytes(k: usize, group_size: GroupSize) -> u64 {
    let k64 = k as u64;
    // The matrix, its diagonal blocks (of phase 1 and of the approximation), the factor in f64 and f32, packed tokens.
    k64 * k64 * 4 + 2 * k64 * group_size.len(k).min(k) as u64 * 4 + k64 * RANK as u64 * 12 + 2 * k64 * 256 * 4
}

/// What compensation takes for a linear `[N,K]` beside its Gram matrix: the whole matrix, scaled, and its factor, with what a
/// product packs of them, and rows with their codes for every beginning; before that, where weights are corrected, the sums
/// over windows of `tokens`.
fn compensation_bytes((n, k): (usize, usize), search: Search, tokens: usize) -> u64 {
    if search != Search::Compensate {
        return 0;
    }
    let rows = ((n * k * 4) as u64).min(ROW_BUFFER_BYTES as u64);
    let (n, k, tokens) = (n as u64, k as u64, tokens as u64);
    let choosing = 14 * k * k + 12 * rows;
    let observing = match tokens {
        0 => 0,
        // The sums and a product of a window, a second Gram matrix; a window's rows, quantized, turned, packed.
        _ => 12 * k * n.max(k) + 8 * k * k + 48 * tokens * n.max(k),
    };
    choosing.max(observing)
}

/// A block in f32 or as stored, beside its mapped pages.
fn original_block_bytes(config: &ModelConfig, options: &QuantOptions) -> u64 {
    let is_f32 = options.rotate || options.hadamard_down;
    let float = if is_f32 { 4 } else { float_bytes(config) };
    let weights =
        |(spec, _): (BlockSpec, usize)| spec.linears.values().map(|linear| linear.n * linear.k).sum();
    let largest: usize = kinds_of_blocks(config)
        .into_iter()
        .map(weights)
        .max()
        .unwrap_or_default();
    3 * largest as u64 * float
}

/// The Gram matrices of experts that are filled in one pass, beside that of the one at hand, and what they have in common.
fn expert_gram_bytes(config: &ModelConfig) -> u64 {
    let Some(mixture) = &config.mixture else { return 0 };
    let of_role =
        |k: usize| (experts_at_once(k, mixture.num_experts) * 4 * k * k) as u64 + 4 * (k * k) as u64;
    of_role(config.hidden_size).max(of_role(mixture.expert_size))
}

/// The streams of all linears while the effect of rounding is measured.
fn rounded_bytes<D: Statistics>(config: &ModelConfig, windows: &Windows) -> u64 {
    let streams = 1 + Role::ALL.len() * config.num_layers;
    HiddenStates::<D>::residual_bytes(config, &windows.held_out().repeated(streams))
}

/// What is there beside them: a block with a linear as it is and as it is rounded, or the head as floats and two windows of predictions.
fn measuring_bytes(config: &ModelConfig, options: &QuantOptions, windows: &Windows) -> u64 {
    let vocabulary = config.vocab_size as u64;
    let predictions = 3 * held_out_tokens(windows.window_len()) as u64 * vocabulary * 4;
    let head = 2 * vocabulary * config.hidden_size as u64 * float_bytes(config);
    let spec = BlockSpec::new(config, 0);
    let linears = spec.linears.values();
    let rounded = linears.map(|linear| (linear.n * linear.k) as u64 * 16).max();
    let block = original_block_bytes(config, options) + rounded.unwrap_or_default();
    (predictions + head).max(block)
}

/// A linear in f32, its mapped pages, what phase 1 decided.
fn weight_bytes((n, k): (usize, usize), group_size: GroupSize, stored: u64) -> u64 {
    let weights = (n * k) as u64;
    weights * (4 + stored) + (n * group_size.num_groups(k)) as u64 * 8 + n as u64 * 64
}

/// A linear once more, its columns as rows, while it is rotated.
fn turned_bytes((n, k): (usize, usize), options: &QuantOptions) -> u64 {
    if options.rotate { (n * k * 4) as u64 } else { 0 }
}

/// The buffers that run a window.
fn window_buffer_bytes(config: &ModelConfig, tokens: usize) -> u64 {
    let scratch = scratch_bytes(config, tokens) + angles_bytes(config, tokens);
    scratch as u64 + (tokens * config.hidden_size) as u64 * 8
}

/// Weights of all linears.
fn num_weights(linears: &[Vec<((usize, usize), LinearScheme)>]) -> u64 {
    let shapes = linears.iter().flatten().map(|&(shape, _)| shape);
    shapes.map(|(n, k)| (n * k) as u64).sum()
}

/// Shape and scheme of the linears of every block.
fn all_linears(config: &ModelConfig, options: &QuantOptions) -> Vec<Vec<((usize, usize), LinearScheme)>> {
    // Beside their kinds blocks differ in their schemes alone.
    let kinds = kinds_of_blocks(config);
    let of_block = |layer| {
        let kind = kind_of_block(&kinds, config, layer);
        let linears = kind.into_iter().flat_map(|spec| spec.linears.values());
        linears
            .map(|linear| {
                let scheme = options.scheme(LinearId { layer, ..linear.id });
                ((linear.n, linear.k), scheme)
            })
            .collect()
    };
    (0..config.num_layers).map(of_block).collect()
}

/// The same with fp16 group scales and zeros where weights have four bits.
fn a16w4_bytes((n, k): (usize, usize), scheme: LinearScheme, float: u64) -> u64 {
    match scheme {
        LinearScheme::W4 { group_size } => (n * (int4::row_bytes(k) + 4 * group_size.num_groups(k))) as u64,
        LinearScheme::Float | LinearScheme::W8 => stored_bytes((n, k), scheme, float),
    }
}

/// What a run takes by the time of its multiply-adds at the rate of a large product: loops over codes, small matrices and memory, which weigh the
/// more the fewer inputs the narrowest linear has. Measured on two AMX cores: 1.8 to 2.3 for 2,048 inputs, 1.9 for 1,024, 3.0 for 256, in a dense
/// model and in experts.
fn time_overhead(config: &ModelConfig) -> f64 {
    let kinds = kinds_of_blocks(config);
    let linears = kinds.iter().flat_map(|(spec, _)| spec.linears.values());
    let narrowest = linears.map(|linear| linear.k).min().unwrap_or(1);
    1.8 + 320.0 / narrowest.max(1) as f64
}

/// Measures the machine for a quarter of a second: the best of many Gram accumulations, since a processor that was idle begins slowly.
fn multiply_adds_per_s<D: Statistics>(device: &D) -> Result<f64, DeviceError> {
    let tokens = 256;
    let mut x = device.matrix(tokens, MEASURED_SIDE)?;
    let values: Vec<f32> = (0..tokens * MEASURED_SIDE)
        .map(|i| (i % 251) as f32 * 0.01 - 1.25)
        .collect();
    device.upload(&mut x, &values)?;
    let mut gram = device.gram(MEASURED_SIDE)?;
    let (begun, mut best_s) = (Instant::now(), f64::INFINITY);
    while begun.elapsed() < MEASURED_TIME {
        let start = Instant::now();
        device.gram_accumulate(&mut gram, &x)?;
        best_s = best_s.min(start.elapsed().as_secs_f64());
    }
    Ok((tokens * MEASURED_SIDE * MEASURED_SIDE / 2) as f64 / best_s.max(1e-9))
}
