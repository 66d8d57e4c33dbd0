//! A whole model: embedding, blocks, head.

use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use dualgrain_device::{CacheFormat, Device, Done, Outputs, SLICE_ROWS};
use dualgrain_format::checkpoint::Dtype;
use dualgrain_format::{CacheScheme, FloatValues, KEY_SCALES_TENSOR, LinearScheme, VALUE_SCALES_TENSOR};

use crate::{Block, EngineError, MixtureSpec, ModelConfig, Norm, Position, Projection, Weights};

/// What a caller can choose at load.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Format of the KV cache; by default what the folder's config says, f32 for an unquantized model.
    pub cache: Option<CacheFormat>,
    /// Blocks that are read and packed at once; 0 counts as 1. Each takes memory of the host for its own weights.
    pub blocks_at_once: usize,
}

/// A loaded model; [`crate::Session`] runs it.
pub struct Model<D: Device> {
    device: Arc<D>,
    config: ModelConfig,
    embedding: Embedding<D>,
    blocks: Vec<Block<D>>,
    head: Head<D>,
    cache_format: CacheFormat,
}

/// Token embedding with what belongs to it: learned positions, a norm.
pub struct Embedding<D: Device> {
    tokens: D::Table,
    /// Entry p is that of position p: entries before the offset are left out.
    positions: Option<D::Table>,
    norm: Option<Norm<D>>,
    bytes: usize,
}

/// Final norm and the projection to logits.
pub struct Head<D: Device> {
    norm: Norm<D>,
    projection: Projection<D>,
    /// [`ModelConfig::logit_cap`]
    cap: Option<f32>,
}

impl<D: Device> Model<D> {
    /// Loads a folder, original or quantized. bf16 weights stay bf16, f16 and f32 become f32.
    ///
    /// # Errors
    /// See [`EngineError`]; every tensor must be used.
    pub fn load(device: Arc<D>, dir: &Path, options: &LoadOptions) -> Result<Self, EngineError> {
        let config = ModelConfig::load(dir)?;
        let weights = Weights::open(dir)?;
        Self::build(device, config, &weights, options)
    }

    /// Builds a model from an already read configuration and its weights.
    ///
    /// # Errors
    /// See [`EngineError`]; every tensor must be used.
    pub fn build(
        device: Arc<D>,
        config: ModelConfig,
        weights: &Weights,
        options: &LoadOptions,
    ) -> Result<Self, EngineError> {
        let embedding = Embedding::load(&*device, weights, &config)?;
        weights.release_pages();
        let blocks = load_blocks(&*device, weights, &config, options.blocks_at_once)?;
        let head = Head::load(&*device, weights, &config)?;
        let stored = stored_cache_format(weights, &config)?;
        weights.finish()?;
        weights.release_pages();
        Ok(Self {
            device,
            config,
            embedding,
            blocks,
            head,
            cache_format: options.cache.clone().unwrap_or(stored),
        })
    }

    /// Bytes that the weights of a folder take once they are packed, about; `None` beyond what can be counted.
    pub fn required_bytes(weights: &Weights, config: &ModelConfig) -> Option<u64> {
        let head = config.family.head_name();
        let scheme = config.quantization.as_ref().map(|q| q.scheme(head));
        let is_copied = config.tie_embeddings && scheme.is_none_or(|scheme| scheme == LinearScheme::Float);
        let embedding = format!("{}.weight", config.family.embedding_name());
        let is_bf16 = weights
            .stored(&embedding)
            .is_ok_and(|(dtype, ..)| dtype == Dtype::BF16);
        let copied = match (is_copied, is_bf16) {
            (false, _) => 0,
            (true, true) => 2,
            (true, false) => 4,
        };
        // What is multiplied needs the digits of 32 bits.
        let widened = if is_bf16 && config.embedding_scale != 1.0 {
            2
        } else {
            0
        };
        let elements = config.vocab_size.checked_mul(config.hidden_size)?;
        let more = elements.checked_mul(copied + widened)? as u64;
        weights.loaded_bytes().checked_add(more)
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The embedding.
    pub fn embedding(&self) -> &Embedding<D> {
        &self.embedding
    }

    /// The blocks.
    pub fn blocks(&self) -> &[Block<D>] {
        &self.blocks
    }

    /// The head.
    pub fn head(&self) -> &Head<D> {
        &self.head
    }

    /// Format of the KV cache.
    pub fn cache_format(&self) -> &CacheFormat {
        &self.cache_format
    }

    /// All packed linears that every token takes (blocks and head), with what becomes of their outputs.
    pub fn linears(&self) -> Vec<(&D::Linear, Outputs)> {
        let in_blocks = self.blocks.iter().flat_map(Block::linears);
        let head = (&self.head.projection.linear, Outputs::Whole);
        in_blocks.chain([head]).collect()
    }

    /// Bytes of the packed linears that a step of `m` tokens reads: of experts, those that tokens go to when each is as likely as any other.
    pub fn bytes_read(&self, m: usize) -> f64 {
        let bytes = |block: &Block<D>| {
            let choice = block.spec().mixture.as_ref().map(MixtureSpec::choice);
            let part = choice.map_or(1.0, |choice| {
                choice.num_active(m) as f64 / choice.num_experts as f64
            });
            let of_experts = block.expert_bytes(&self.device) as f64;
            block.linear_bytes(&self.device) as f64 - (1.0 - part) * of_experts
        };
        let head = self.device.linear_bytes(&self.head.projection.linear);
        self.blocks.iter().map(bytes).sum::<f64>() + head as f64
    }

    /// Bytes of all packed linears (blocks and head).
    pub fn linear_bytes(&self) -> usize {
        let in_blocks = self.blocks.iter().map(|block| block.linear_bytes(&self.device));
        in_blocks.sum::<usize>() + self.device.linear_bytes(&self.head.projection.linear)
    }
}

impl<D: Device> Model<D> {
    /// Bytes of all weights in memory: linears and embeddings (norms and biases are left out).
    pub fn weight_bytes(&self) -> usize {
        self.linear_bytes() + self.embedding.bytes
    }
}

impl<D: Device> Embedding<D> {
    /// Loads the embedding's tensors.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub fn load(device: &D, weights: &Weights, config: &ModelConfig) -> Result<Self, EngineError> {
        let hidden = config.hidden_size;
        let name = format!("{}.weight", config.family.embedding_name());
        let tokens = weights.float(&name, &[config.vocab_size, hidden])?;
        let tokens = scaled(tokens, config.embedding_scale);
        let mut bytes = table_bytes(&tokens);
        let positions = match config.position {
            Position::Learned { offset } => {
                let name = format!("{}.weight", config.family.positions_name());
                let values = weights.float(&name, &[config.max_positions + offset, hidden])?;
                let values = without_first(values, offset * hidden);
                bytes += table_bytes(&values);
                Some(device.table(values, hidden)?)
            }
            _ => None,
        };
        let norm = config.embedding_norm();
        Ok(Self {
            tokens: device.table(tokens, hidden)?,
            positions,
            norm: norm.map(|spec| Norm::load(device, weights, &spec)).transpose()?,
            bytes,
        })
    }

    /// An embedding of tokens alone: `values` [entries, hidden], no learned positions and no norm.
    ///
    /// # Errors
    /// The device has no room, or the values are no whole entries.
    pub fn of_tokens(device: &D, values: FloatValues, hidden: usize) -> Result<Self, EngineError> {
        let bytes = table_bytes(&values);
        Ok(Self {
            tokens: device.table(values, hidden)?,
            positions: None,
            norm: None,
            bytes,
        })
    }

    /// `x` [M, hidden] for tokens at positions; `y` is a buffer of the same shape.
    ///
    /// # Errors
    /// The device failed.
    pub fn apply(
        &self,
        device: &D,
        x: &mut D::Matrix,
        y: &mut D::Matrix,
        tokens: &D::Indices,
        positions: &D::Indices,
    ) -> Done {
        // No buffers are swapped: a device may have recorded where they lie.
        let (sum, other) = if self.norm.is_some() { (y, x) } else { (x, y) };
        device.embed(sum, &self.tokens, tokens)?;
        if let Some(table) = &self.positions {
            device.embed(other, table, positions)?;
            device.add(sum, other)?;
        }
        if let Some(norm) = &self.norm {
            norm.apply(device, other, sum)?;
        }
        Ok(())
    }
}

impl<D: Device> Head<D> {
    /// Loads final norm and head (a tied head is packed from the embedding and independent of it).
    ///
    /// # Errors
    /// See [`EngineError`].
    pub fn load(device: &D, weights: &Weights, config: &ModelConfig) -> Result<Self, EngineError> {
        let norm = Norm::load(device, weights, &config.final_norm())?;
        Ok(Self::of_parts(norm, load_head(device, weights, config)?, config))
    }

    /// A head of the model of `config` with another norm and projection than its folder's.
    pub fn of_parts(norm: Norm<D>, projection: Projection<D>, config: &ModelConfig) -> Self {
        Self {
            norm,
            projection,
            cap: config.logit_cap,
        }
    }

    /// The projection's weights.
    pub(crate) fn linear(&self) -> &D::Linear {
        &self.projection.linear
    }

    /// `logits` [M, vocab] of `x` [M, hidden]; `h` and `a8` are buffers of that shape.
    ///
    /// # Errors
    /// The device failed.
    pub fn apply(
        &self,
        device: &D,
        logits: &mut D::Matrix,
        x: &D::Matrix,
        h: &mut D::Matrix,
        a8: &mut D::Quantized,
    ) -> Done {
        let normed = (Some(&self.norm), x);
        self.projection.apply_normed(device, logits, normed, h, a8)?;
        match self.cap {
            Some(cap) => device.soft_cap(logits, cap),
            None => Ok(()),
        }
    }
}

/// All blocks, some of them at once; of several errors the one of the first layer.
fn load_blocks<D: Device>(
    device: &D,
    weights: &Weights,
    config: &ModelConfig,
    at_once: usize,
) -> Result<Vec<Block<D>>, EngineError> {
    let next = AtomicUsize::new(0);
    let load = || {
        let mut loaded = Vec::new();
        loop {
            let layer = next.fetch_add(1, Ordering::Relaxed);
            if layer >= config.num_layers {
                return loaded;
            }
            let block = Block::load(device, weights, config, layer);
            weights.release_pages();
            if block.is_err() {
                // No thread begins another one.
                next.store(config.num_layers, Ordering::Relaxed);
            }
            loaded.push((layer, block));
        }
    };
    let mut loaded = thread::scope(|scope| {
        // A system that gives no more threads leaves the work to those that are there.
        let spawn = |_| thread::Builder::new().spawn_scoped(scope, load).ok();
        let others: Vec<_> = (1..at_once).map_while(spawn).collect();
        let mut loaded = load();
        for other in others {
            loaded.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        loaded
    });
    loaded.sort_by_key(|&(layer, _)| layer);
    loaded.into_iter().map(|(_, block)| block).collect()
}

/// Weights of a slice of the head: some megabytes in any scheme.
const SLICE_WEIGHTS: usize = 4 << 20;

/// The head in the scheme the folder lists for it; a tied float head is the embedding's matrix.
///
/// It is the largest tensor of many models and comes last, so it passes through memory in slices: mapped, copied and packed
/// at once, the head of a vocabulary of 128,000 would be a gigabyte more than the model.
fn load_head<D: Device>(
    device: &D,
    weights: &Weights,
    config: &ModelConfig,
) -> Result<Projection<D>, EngineError> {
    let (head, embedding) = (config.family.head_name(), config.family.embedding_name());
    let (n, k) = (config.vocab_size, config.hidden_size);
    let quantization = config.quantization.as_ref();
    let scheme = quantization.map_or(LinearScheme::Float, |q| q.scheme(head));
    let (name, quantization) = match config.tie_embeddings && scheme == LinearScheme::Float {
        true => (embedding, None),
        false => (head, quantization),
    };
    if name == embedding {
        weights.check_tied_head(head, embedding)?;
    }
    let rows = (SLICE_WEIGHTS / k.max(1))
        .next_multiple_of(SLICE_ROWS)
        .max(SLICE_ROWS);
    let slices = (0..n).step_by(rows).map(|first| {
        let slice = weights.linear_rows(name, ((n, k), first..(first + rows).min(n)), false, quantization)?;
        weights.release_pages();
        Ok(slice)
    });
    Projection::from_slices(device, (n, k), slices)
}

fn stored_cache_format(weights: &Weights, config: &ModelConfig) -> Result<CacheFormat, EngineError> {
    let scales = |name| weights.f32(name, &[config.num_layers]);
    Ok(match config.quantization.as_ref().map(|q| q.kv_cache) {
        None => CacheFormat::F32,
        Some(CacheScheme::Int8Static) => CacheFormat::Int8Static {
            key_scales: scales(KEY_SCALES_TENSOR)?,
            value_scales: scales(VALUE_SCALES_TENSOR)?,
        },
        Some(scheme) => scheme.into(),
    })
}

fn table_bytes(values: &FloatValues) -> usize {
    let element = match values {
        FloatValues::F32(_) => 4,
        FloatValues::Bf16(_) => 2,
    };
    element * values.len()
}

/// A factor that is no power of two needs the digits of 32 bits.
fn scaled(values: FloatValues, factor: f32) -> FloatValues {
    if factor == 1.0 {
        return values;
    }
    let mut values = values.to_f32();
    values.iter_mut().for_each(|value| *value *= factor);
    FloatValues::F32(values)
}

fn without_first(values: FloatValues, count: usize) -> FloatValues {
    match values {
        FloatValues::F32(mut v) => FloatValues::F32(v.split_off(count)),
        FloatValues::Bf16(mut v) => FloatValues::Bf16(v.split_off(count)),
    }
}
