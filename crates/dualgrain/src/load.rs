//! A model folder, original or quantized, ready to run.

use std::path::Path;
use std::sync::Arc;

use dualgrain_device::CacheFormat;
use dualgrain_engine::tokenizer::Tokenizer;
use dualgrain_engine::{InFloats, LoadOptions, Model, ModelConfig, SessionLimits, Storage, Weights, judge};

use crate::any_device::{AnyDevice, DeviceChoice};
use crate::error::Error;
use crate::memory_plan::MemoryPlan;

/// How a model is loaded.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The device that runs the model.
    pub device: DeviceChoice,
    /// Threads of the CPU that share the work; 0 takes all cores.
    pub threads: usize,
    /// Format of the KV cache; by default the one that the folder names.
    pub cache: Option<CacheFormat>,
}

/// A model with its tokenizer.
pub struct Loaded {
    /// The model.
    pub model: Arc<Model<AnyDevice>>,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
}

/// Loads the folder `dir`. A model that memory can not hold is refused before its weights are read.
///
/// # Errors
/// No such folder, a file that is missing or damaged, something unsupported, too little memory.
pub fn load(dir: impl AsRef<Path>, options: &Options) -> Result<Loaded, Error> {
    let chosen = options.device.open(options.threads, dir.as_ref(), 1.0)?;
    load_on(dir, &Arc::new(chosen.device), options.cache.clone())
}

/// As [`load`], on a device that is there already.
///
/// # Errors
/// As [`load`].
pub fn load_on(
    dir: impl AsRef<Path>,
    device: &Arc<AnyDevice>,
    cache: Option<CacheFormat>,
) -> Result<Loaded, Error> {
    let dir = dir.as_ref();
    let model = model_on(dir, device, cache)?;
    let tokenizer = Tokenizer::load(dir, model.config().vocab_size)?;
    Ok(Loaded {
        model: Arc::new(model),
        tokenizer: Arc::new(tokenizer),
    })
}

/// The model alone, for measurements that need no text.
///
/// # Errors
/// As [`load`].
pub fn model_on(
    dir: &Path,
    device: &Arc<AnyDevice>,
    cache: Option<CacheFormat>,
) -> Result<Model<AnyDevice>, Error> {
    model_in_floats(dir, device, cache, InFloats::default())
}

/// As [`model_on`], with some parts computed in floats.
///
/// # Errors
/// As [`load`].
pub fn model_in_floats(
    dir: &Path,
    device: &Arc<AnyDevice>,
    cache: Option<CacheFormat>,
    parts: InFloats,
) -> Result<Model<AnyDevice>, Error> {
    if !dir.is_dir() {
        return Err(Error::NoFolder { dir: dir.to_owned() });
    }
    let config = ModelConfig::load(dir)?;
    let mut weights = Weights::open(dir)?;
    check_memory(device, required_bytes(&weights, &config, parts)?)?;
    weights.take_in_floats(parts);
    judge(&config, &weights)?;
    let block_bytes = weights.loaded_bytes() / config.num_layers.max(1) as u64;
    Ok(Model::build(
        Arc::clone(device),
        config,
        &weights,
        &LoadOptions {
            cache,
            blocks_at_once: device.blocks_at_once(block_bytes),
        },
    )?)
}

/// Bytes of the weights of a folder once they are packed, where linears in floats take four bytes a weight.
fn required_bytes(weights: &Weights, config: &ModelConfig, parts: InFloats) -> Result<u64, Error> {
    let stored = Model::<AnyDevice>::required_bytes(weights, config).unwrap_or(u64::MAX);
    let head = (config.vocab_size as u64).saturating_mul(config.hidden_size as u64);
    let blocks = match parts.blocks {
        true => {
            Storage::measure(weights, config)
                .map_err(dualgrain_engine::EngineError::from)?
                .linear_weights
        }
        false => 0,
    };
    let floats = blocks.saturating_add(if parts.head { head } else { 0 });
    Ok(stored.saturating_add(floats.saturating_mul(4)))
}

fn check_memory(device: &AnyDevice, needed_bytes: u64) -> Result<(), Error> {
    let Some(free_bytes) = device.room_bytes() else {
        return Ok(());
    };
    match needed_bytes <= free_bytes {
        true => Ok(()),
        false => Err(Error::Memory {
            needed_bytes,
            free_bytes,
        }),
    }
}

/// The plan for the folder `dir` on a device, of whose free memory it may take `share`; `cache` overrides the folder's cache
/// format. Nothing is read but headers.
///
/// # Errors
/// A folder that is missing or damaged.
pub fn plan_memory(
    dir: &Path,
    device: &AnyDevice,
    cache: Option<&CacheFormat>,
    limits: SessionLimits,
    share: f64,
) -> Result<MemoryPlan, Error> {
    let config = ModelConfig::load(dir)?;
    let weights = Weights::open(dir)?;
    let cache = cache.cloned().unwrap_or_else(|| usual_cache(&config));
    let token = cache.bytes_per_token(config.num_kv_heads, config.head_dim);
    let (cache_bytes, buffer_bytes) = limits.required_bytes(&config, &cache).unwrap_or((u64::MAX, 0));
    let own_bytes = device.workspace_bytes(&limits, &config);
    Ok(MemoryPlan {
        device: dualgrain_device::Device::name(device),
        weight_bytes: Model::<AnyDevice>::required_bytes(&weights, &config).unwrap_or(u64::MAX),
        cache_bytes,
        buffer_bytes: buffer_bytes.saturating_add(own_bytes),
        room_bytes: device.room_bytes().map(|room| (share * room as f64) as u64),
        limits,
        token_bytes: (token * config.num_layers) as u64,
    })
}

/// The format that a folder's model takes by itself. Only its size counts here, so static scales are not read.
fn usual_cache(config: &ModelConfig) -> CacheFormat {
    let stored = config.quantization.as_ref();
    stored.map_or(CacheFormat::F32, |quantization| quantization.kv_cache.into())
}
