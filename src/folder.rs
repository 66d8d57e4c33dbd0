//! Opening a model folder for the verbs that run it, and the texts and model that travel inside the binary.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use dualgrain_engine::tokenizer::Tokenizer;
use dualgrain_engine::{LoadOptions, Model};
use dualgrain_kernels::CacheFormat;
use dualgrain_kernels::cpu::CpuBackend;

/// Public-domain prose for calibration, used when the user names no text.
pub const SAMPLE_CALIBRATION: &str = include_str!("../models/llama-tiny/sample_calib.txt");
/// Public-domain prose for evaluation, none of it in the bundled model's training text.
pub const SAMPLE_EVALUATION: &str = include_str!("../models/llama-tiny/sample_eval.txt");

/// A loaded model with its tokenizer.
pub struct Opened {
    /// The model.
    pub model: Arc<Model<CpuBackend>>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
}

/// Loads the folder `dir` on `backend`; `cache` overrides the folder's cache format.
pub fn open(dir: &Path, backend: &Arc<CpuBackend>, cache: Option<CacheFormat>) -> Result<Opened> {
    ensure!(dir.is_dir(), "{}: no such model folder", dir.display());
    let options = LoadOptions { cache };
    let model = Model::load(Arc::clone(backend), dir, &options)
        .with_context(|| format!("loading the model in {}", dir.display()))?;
    let tokenizer = Tokenizer::load(dir, model.config().vocab_size)?;
    Ok(Opened {
        model: Arc::new(model),
        tokenizer,
    })
}
