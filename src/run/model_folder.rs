//! Opening a model folder for the verbs that run it.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
pub use dualgrain::Loaded as Opened;
use dualgrain::engine::{Model, ModelConfig, ModelFolder, folder_hint};
use dualgrain::{AnyDevice, CacheFormat, DeviceChoice, Error, MemoryPlan, SessionLimits, plan_memory};

use crate::cli::terminal::Terminal;

/// Opens the device that was chosen for the folder `dir`, of whose free memory it may take the share `memory`, and says which one where that was left open.
pub fn device(
    choice: DeviceChoice,
    threads: usize,
    (dir, memory): (&Path, f64),
    terminal: &Terminal,
) -> Result<Arc<AnyDevice>> {
    check_folder(dir)?;
    let chosen = choice
        .open(threads, dir, memory)
        .with_context(|| format!("opening the device {choice} (--device cpu needs no card)"))?;
    if let Some(reason) = chosen.reason {
        terminal.say(&reason);
    }
    Ok(Arc::new(chosen.device))
}

/// Refuses sequences and contexts that do not fit the device's memory beside the models in the folders, each with the cache format that
/// overrides its own, before anything is loaded; says in detail what fits.
pub fn check_memory(
    folders: &[(&Path, Option<CacheFormat>)],
    device: &AnyDevice,
    limits: SessionLimits,
    (share, terminal): (f64, &Terminal),
) -> Result<()> {
    let mut together: Option<MemoryPlan> = None;
    for (dir, cache) in folders {
        check_folder(dir)?;
        let plan = plan_memory(dir, device, cache.as_ref(), limits, share).with_context(|| loading(dir))?;
        together = Some(match together {
            None => plan,
            Some(others) => others.beside(&plan),
        });
    }
    let Some(plan) = together else {
        return Ok(());
    };
    let names: Vec<_> = folders.iter().map(|(dir, _)| dir.display().to_string()).collect();
    let plan = plan.check().map_err(Error::Plan);
    let plan = plan.with_context(|| format!("loading the model in {}", names.join(" and ")))?;
    terminal.detail(&plan.to_string());
    folders
        .iter()
        .try_for_each(|(dir, _)| judged(dir, terminal).map(drop))
}

/// Loads the folder `dir` on `device`; `cache` overrides the folder's cache format.
pub fn open(dir: &Path, device: &Arc<AnyDevice>, cache: Option<CacheFormat>) -> Result<Opened> {
    check_folder(dir)?;
    dualgrain::load_on(dir, device, cache).with_context(|| loading(dir))
}

/// The model alone; one that memory cannot hold is refused before anything is read.
pub fn load(dir: &Path, device: &Arc<AnyDevice>, cache: Option<CacheFormat>) -> Result<Model<AnyDevice>> {
    dualgrain::model_on(dir, device, cache).with_context(|| loading(dir))
}

/// The configuration of the folder `dir`.
pub fn config(dir: &Path) -> Result<ModelConfig> {
    check_folder(dir)?;
    Ok(ModelConfig::load(dir)?)
}

/// The judgement that every verb makes of a folder; says what a person should know of it.
pub fn judged(dir: &Path, terminal: &Terminal) -> Result<ModelFolder> {
    check_folder(dir)?;
    let folder = ModelFolder::open(dir).with_context(|| loading(dir))?;
    folder.notices.iter().for_each(|notice| terminal.say(notice));
    Ok(folder)
}

/// Tokens of a sequence: `asked`, or by itself `usual`, and no more than the model has positions for.
pub fn context(asked: Option<usize>, config: &ModelConfig, usual: usize) -> Result<usize> {
    let most = config.max_positions;
    let context = asked.unwrap_or(usual.min(most));
    ensure!(
        context <= most,
        "--context {context}: the model has positions for {most} tokens"
    );
    Ok(context)
}

/// Refuses what is no folder, with what it may have been meant to be.
pub fn check_folder(dir: &Path) -> Result<()> {
    ensure!(
        dir.is_dir(),
        "{}: no such model folder{}",
        dir.display(),
        folder_hint(dir)
    );
    Ok(())
}

fn loading(dir: &Path) -> String {
    format!("loading the model in {}", dir.display())
}
