//! What `cost` is asked: the model in config.json, and how it is run.

use std::path::Path;

use anyhow::{Result, ensure};
use dualgrain::cost::{Asked, config_of_folder};
use dualgrain::engine::{ModelConfig, folder_hint};
use dualgrain::format::CacheScheme;
use dualgrain_hub::ModelName;
use dualgrain_perf::cost::Scheme;

use crate::cli::arguments::{Cost as Options, CostScheme, Kv, LmHead};

/// The configuration in a folder or a file, and what to call the model.
pub fn read_config(path: &Path) -> Result<(ModelConfig, String)> {
    if path.is_dir() {
        return Ok((config_of_folder(path)?, name(path)));
    }
    ensure!(
        path.exists(),
        "{}: no such model folder or config.json{}",
        path.display(),
        folder_hint(path)
    );
    Ok((ModelConfig::read(path)?, name(path)))
}

/// A file that has no name of its own is called by its folder's, a folder of the hub's cache by its model's.
fn name(path: &Path) -> String {
    if let Some(name) = ModelName::of_snapshot(path) {
        return name.to_string();
    }
    let nameless = path.file_name().is_some_and(|name| name == "config.json");
    let named = match nameless {
        true => path.parent().unwrap_or(path),
        false => path,
    };
    let named = named.canonicalize().unwrap_or(named.to_owned());
    let name = if named.is_dir() {
        named.file_name()
    } else {
        named.file_stem()
    };
    name.map_or("the model".into(), |name| name.to_string_lossy().into_owned())
}

/// What was asked for.
pub fn asked(options: &Options) -> Asked {
    Asked {
        batches: options.batch.clone(),
        prompt_tokens: options.prompt,
        generate_tokens: options.generate,
        step_tokens: options.step_tokens,
        scheme: linears(options.scheme),
        head_scheme: options.lm_head.map(head),
        kv_cache: options.kv.map(cache),
    }
}

fn linears(scheme: CostScheme) -> Scheme {
    match scheme {
        CostScheme::W4a8 => Scheme::W4a8,
        CostScheme::W8a8 => Scheme::W8a8,
        CostScheme::Bf16 => Scheme::Bf16,
    }
}

fn head(head: LmHead) -> Scheme {
    match head {
        LmHead::Float => Scheme::Bf16,
        LmHead::Int8 => Scheme::W8a8,
        LmHead::W4a8 => Scheme::W4a8,
    }
}

fn cache(kv: Kv) -> CacheScheme {
    match kv {
        Kv::Int8 => CacheScheme::Int8,
        Kv::Int8Static => CacheScheme::Int8Static,
        Kv::F16 => CacheScheme::F16,
    }
}
