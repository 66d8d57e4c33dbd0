//! `pull`: a model from the hub into its cache; and names of the hub in the place of folders, which every verb takes.

use std::path::{Path, PathBuf};

use anyhow::Result;
use dualgrain::engine::{gguf_folder, is_gguf_file};
use dualgrain_hub::{Extent, ModelName, Pulled, Revision, Settings, Watch, cache_folder};
use serde::Serialize;

use crate::cli::arguments::{Pull, Verb};
use crate::cli::interruption::interrupt_flag;
use crate::cli::terminal::Terminal;
use crate::cli::units::bytes;
use crate::run::quantize;

#[derive(Serialize)]
struct Report {
    path: String,
    commit: String,
    files: Vec<File>,
    size_bytes: u64,
    from_cache: bool,
}

#[derive(Serialize)]
struct File {
    name: String,
    size_bytes: u64,
}

/// Downloads the model, or what of it is not there yet.
pub fn run(arguments: &Pull, terminal: &Terminal) -> Result<()> {
    let revision = arguments.revision.clone().unwrap_or_default();
    let pulled = pull(
        &arguments.model,
        (&revision, Extent::Whole),
        arguments.offline,
        terminal,
    )?;
    let of_revision = arguments
        .revision
        .as_ref()
        .map(|_| pulled.path.display().to_string());
    let quantized = of_revision.unwrap_or_else(|| arguments.model.to_string());
    let text = text(&arguments.model, &quantized, &pulled);
    terminal.result(&Report::from(pulled), &text)
}

/// Puts folders in the place of GGUF files, and of names on the hub that are no folders here: those of the cache, and for `quantize` also what the hub has. A name
/// that is not found stays, and the verb says what it is.
pub fn find_models(verb: &mut Verb, terminal: &Terminal) -> Result<()> {
    for model in verb.models() {
        if is_gguf_file(model) {
            let folder = gguf_folder(model)?;
            terminal.detail(&format!(
                "{}: as the folder {}",
                model.display(),
                folder.display()
            ));
            *model = folder;
            continue;
        }
        if let Some(found) = in_cache(model) {
            terminal.detail(&format!(
                "{}: in the hub's cache at {}",
                model.display(),
                found.display()
            ));
            *model = found;
        }
    }
    let Verb::Quantize(options) = verb else {
        return Ok(());
    };
    if let Some(name) = name_on_the_hub(&options.model) {
        let newest = Revision::default();
        options.model = pull(&name, (&newest, Extent::WithoutWeights), false, terminal)?.path;
        if !options.plan {
            // What would be refused is refused before gigabytes come.
            quantize::check_before_download(options)?;
            options.model = pull(&name, (&newest, Extent::Whole), false, terminal)?.path;
        }
    }
    Ok(())
}

/// The folder of a name on the hub, where the cache has all of its model.
fn in_cache(model: &Path) -> Option<PathBuf> {
    let name = name_on_the_hub(model)?;
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    dualgrain_hub::find(&name, &Revision::default(), &cache_folder(&set).ok()?)
}

/// The name that stands in the place of a folder. What is there is a folder, whatever the hub has.
fn name_on_the_hub(model: &Path) -> Option<ModelName> {
    let is_there = model.symlink_metadata().is_ok();
    let text = model.to_str().filter(|_| !is_there)?;
    text.parse().ok()
}

fn pull(
    name: &ModelName,
    (revision, extent): (&Revision, Extent),
    is_offline: bool,
    terminal: &Terminal,
) -> Result<Pulled> {
    let mut settings = Settings::from_environment()?;
    settings.is_offline |= is_offline;
    let cancel = interrupt_flag()?;
    let watch = OnTerminal {
        task: format!("downloading {name}"),
        terminal,
    };
    let pulled = dualgrain_hub::pull(name, revision, extent, &settings, (&watch, &cancel));
    terminal.finish();
    Ok(pulled?)
}

/// A bar on a terminal, a line for each file elsewhere.
struct OnTerminal<'a> {
    task: String,
    terminal: &'a Terminal,
}

impl Watch for OnTerminal<'_> {
    fn bytes(&self, file: &str, done: u64, total: u64) {
        if self.terminal.interactive() {
            self.terminal.progress(&self.task, file, done, total);
        }
    }

    fn file(&self, file: &str, size_bytes: u64, is_new: bool) {
        if is_new && !self.terminal.interactive() {
            self.terminal.say(&format!("{file}: {}", bytes(size_bytes)));
        }
    }

    fn say(&self, line: &str) {
        self.terminal.say(line);
    }
}

impl From<Pulled> for Report {
    fn from(pulled: Pulled) -> Self {
        Self {
            size_bytes: pulled.size_bytes(),
            path: pulled.path.display().to_string(),
            commit: pulled.commit,
            files: pulled
                .files
                .into_iter()
                .map(|(name, size_bytes)| File { name, size_bytes })
                .collect(),
            from_cache: pulled.from_cache,
        }
    }
}

/// `quantized` is what `quantize` takes: a name stands for the newest state of its main branch.
fn text(name: &ModelName, quantized: &str, pulled: &Pulled) -> String {
    let came = match pulled.from_cache {
        true => "all of it was there",
        false => "downloaded",
    };
    format!(
        "{name} at {}: {} files, {}, {came}\n{}\nnext: dualgrain quantize {quantized} --out {}-w4a8\n",
        pulled.commit.get(..12).unwrap_or(&pulled.commit),
        pulled.files.len(),
        bytes(pulled.size_bytes()),
        pulled.path.display(),
        name.name(),
    )
}
