//! Opening a model folder for the verbs that run it.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
pub use dualgrain::Loaded as Opened;
use dualgrain::engine::Model;
use dualgrain::{CacheFormat, CpuDevice};

/// Loads the folder `dir` on `device`; `cache` overrides the folder's cache format.
pub fn open(dir: &Path, device: &Arc<CpuDevice>, cache: Option<CacheFormat>) -> Result<Opened> {
    ensure!(dir.is_dir(), "{}: no such model folder", dir.display());
    dualgrain::load_on(dir, device, cache).with_context(|| loading(dir))
}

/// The model alone; one that memory cannot hold is refused before anything is read.
pub fn load(dir: &Path, device: &Arc<CpuDevice>, cache: Option<CacheFormat>) -> Result<Model<CpuDevice>> {
    dualgrain::model_on(dir, device, cache).with_context(|| loading(dir))
}

fn loading(dir: &Path) -> String {
    format!("loading the model in {}", dir.display())
}
