//! Opening a model folder for the verbs that run it.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use dualgrain_cpu::CpuDevice;
use dualgrain_device::CacheFormat;
use dualgrain_engine::tokenizer::Tokenizer;
use dualgrain_engine::{LoadOptions, Model, ModelConfig, Weights};

use crate::cli::units::bytes;
use crate::measure::machine;

/// A loaded model with its tokenizer.
pub struct Opened {
    /// The model.
    pub model: Arc<Model<CpuDevice>>,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
}

/// Loads the folder `dir` on `device`; `cache` overrides the folder's cache format.
pub fn open(dir: &Path, device: &Arc<CpuDevice>, cache: Option<CacheFormat>) -> Result<Opened> {
    ensure!(dir.is_dir(), "{}: no such model folder", dir.display());
    let model = load(dir, device, cache)?;
    let tokenizer = Tokenizer::load(dir, model.config().vocab_size)?;
    Ok(Opened {
        model: Arc::new(model),
        tokenizer: Arc::new(tokenizer),
    })
}

/// The model alone; one that memory cannot hold is refused before anything is read.
pub fn load(dir: &Path, device: &Arc<CpuDevice>, cache: Option<CacheFormat>) -> Result<Model<CpuDevice>> {
    let load = || -> Result<_> {
        let config = ModelConfig::load(dir)?;
        let weights = Weights::open(dir)?;
        check_memory(&weights, &config)?;
        Ok(Model::build(
            Arc::clone(device),
            config,
            &weights,
            &LoadOptions { cache },
        )?)
    };
    load().with_context(|| format!("loading the model in {}", dir.display()))
}

fn check_memory(weights: &Weights, config: &ModelConfig) -> Result<()> {
    let needed = Model::<CpuDevice>::required_bytes(weights, config).unwrap_or(u64::MAX);
    if let Some(memory) = machine::memory() {
        let free = memory.available_bytes.saturating_add(memory.swap_bytes);
        ensure!(
            needed <= free,
            "its weights need {} of memory, {} are free",
            bytes(needed),
            bytes(free)
        );
    }
    Ok(())
}
