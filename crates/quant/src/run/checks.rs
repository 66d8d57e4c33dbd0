//! What is checked before hours of work: the job, the folder it writes, the model it reads.

use std::fs;
use std::path::{Path, PathBuf};

use dualgrain_engine::{BlockSpec, EngineError, ModelConfig, NormSpec, Weights, load_linear, load_router};
use dualgrain_format::ActivationScheme;
use dualgrain_format::checkpoint::{FolderWriter, OutputPlace};

use crate::budget::spending::check_budget;
use crate::calibrate::windows::Windows;
use crate::error::QuantError;
use crate::monitor::Meter;
use crate::options::QuantJob;
use crate::run::output::{is_written, is_written_folder};
use crate::schemes::SchemeRule;
use crate::transform::rotation::hadamard::{hadamard_block, hadamard_block_of};
use crate::transform::rotation::original::reason_against;

/// Checks model and text against the options, and cuts the text into windows.
///
/// # Errors
/// A quantized model, no text, a token that the model does not have, windows longer than it can take.
pub fn check_job(job: &QuantJob, config: &ModelConfig, tokens: &[u32]) -> Result<Windows, QuantError> {
    let windows = check_model(job, config, tokens.len())?;
    if let Some(&got) = tokens.iter().find(|&&token| token as usize >= config.vocab_size) {
        return Err(QuantError::Token {
            got,
            vocab_size: config.vocab_size,
        });
    }
    Ok(windows)
}

/// Checks the model against the options, as far as a text of `num_tokens` tokens need not be read for it.
///
/// # Errors
/// A quantized model, a scheme for a block that is not there, a family that cannot be rotated, no text, windows longer than the model can take.
pub fn check_model(job: &QuantJob, config: &ModelConfig, num_tokens: usize) -> Result<Windows, QuantError> {
    if config.quantization.is_some() {
        return Err(QuantError::AlreadyQuantized {
            path: job.model_dir.clone(),
        });
    }
    check_schemes(job, config)?;
    check_rotation(job, config)?;
    check_mixture(job, config)?;
    check_budget(config, &job.options)?;
    let (num, len) = (job.options.num_windows, job.options.window_tokens);
    let windows = match job.options.bits {
        None => Windows::evenly_spaced(num_tokens, num, len)?,
        Some(_) => Windows::with_gaps(num_tokens, num, len)?,
    };
    if windows.window_len() > config.max_positions {
        return Err(QuantError::WindowTooLong {
            got: windows.window_len(),
            max_positions: config.max_positions,
        });
    }
    Ok(windows)
}

/// A rule for a block that is not there is a slip of the hand.
fn check_schemes(job: &QuantJob, config: &ModelConfig) -> Result<(), QuantError> {
    let beyond = |rule: &&SchemeRule| rule.layer.is_some_and(|layer| layer >= config.num_layers);
    match job.options.schemes.iter().find(beyond) {
        None => Ok(()),
        Some(rule) => Err(QuantError::NoBlock {
            rule: rule.to_string(),
            num_layers: config.num_layers,
        }),
    }
}

/// Families that a rotation would change are refused by name, and a width without blocks.
fn check_rotation(job: &QuantJob, config: &ModelConfig) -> Result<(), QuantError> {
    if job.options.hadamard_down && hadamard_block_of(config).is_none() {
        let widths = config.ffn_widths().into_iter();
        let odd = widths.filter(|&width| hadamard_block(width).is_none()).min();
        return Err(QuantError::NoHadamard {
            ffn_size: odd.unwrap_or(config.ffn_size),
        });
    }
    match reason_against(config).filter(|_| job.options.rotate) {
        None => Ok(()),
        Some(reason) => Err(QuantError::Unrotatable {
            family: config.family.class_prefix(),
            reason,
        }),
    }
}

/// What is not there for experts is refused by name.
fn check_mixture(job: &QuantJob, config: &ModelConfig) -> Result<(), QuantError> {
    let refused = |option, reason| Err(QuantError::NotForExperts { option, reason });
    match (&config.mixture, &job.options) {
        (Some(_), options) if options.bits.is_some() => refused(
            "--bits",
            "what rounding one expert does is not measured yet (--scheme gives roles and blocks schemes by hand)",
        ),
        (Some(_), options) if options.activations == ActivationScheme::Static => refused(
            "--activations static",
            "experts are computed together, and each would have a scale of its own",
        ),
        _ => Ok(()),
    }
}

/// Checks that the folder can be made, before hours of work; returns where.
///
/// # Errors
/// The output exists, or its place cannot be written.
pub fn check_target(job: &QuantJob) -> Result<OutputPlace, QuantError> {
    let place = look_at_target(job)?;
    let writer = FolderWriter::create(&job.out_dir, job.replace)?;
    drop(writer);
    Ok(place)
}

/// As [`check_target`], as far as it can be known without writing anything.
///
/// # Errors
/// As [`check_target`].
pub fn look_at_target(job: &QuantJob) -> Result<OutputPlace, QuantError> {
    let resolved = |path: &Path| path.canonicalize().ok();
    if let (Some(out), Some(model)) = (resolved(&job.out_dir), resolved(&job.model_dir))
        && model.starts_with(&out)
    {
        return Err(QuantError::TargetHoldsModel {
            path: job.out_dir.clone(),
        });
    }
    let place = OutputPlace::of(&job.out_dir)?;
    place.check(job.replace)?;
    // `replace` means: put a new result where an old one is. Anything else is somebody's work.
    let has_entries = entries(&place).next().is_some();
    let ours = ModelConfig::load(&job.out_dir).is_ok_and(|config| config.quantization.is_some());
    if has_entries && !ours {
        return Err(QuantError::TargetNotQuantized {
            path: job.out_dir.clone(),
        });
    }
    match foreign_entry(&place) {
        Some(path) => Err(QuantError::TargetHoldsOthers { path }),
        None => Ok(place),
    }
}

/// What an output folder holds that a run does not keep there for itself.
fn entries(place: &OutputPlace) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(place.target()).into_iter().flatten().flatten();
    let is_ours = |entry: &fs::DirEntry| place.is_ours(&entry.file_name().to_string_lossy());
    entries
        .filter(move |entry| !is_ours(entry))
        .map(|entry| entry.path())
}

/// Something in an output folder that [`assemble`](crate::run::output::assemble) does not write.
fn foreign_entry(place: &OutputPlace) -> Option<PathBuf> {
    let is_ours = |path: &PathBuf| match path.is_dir() {
        true => is_written_folder(path),
        false => path.is_file() && is_written(&path.file_name().unwrap_or_default().to_string_lossy()),
    };
    entries(place).find(|path| !is_ours(path))
}

/// Reads every tensor once before the work starts: shapes, types, values that are not finite, tensors that belong to
/// nothing. A model that fails should fail in its first seconds.
///
/// # Errors
/// What the loader would say of the model; cancellation.
pub fn check_tensors(config: &ModelConfig, weights: &Weights, meter: &Meter<'_>) -> Result<(), QuantError> {
    for layer in 0..config.num_layers {
        check_block(&BlockSpec::new(config, layer), weights)?;
        meter.check()?;
    }
    check_outer_tensors(config, weights)?;
    Ok(())
}

fn check_block(spec: &BlockSpec, weights: &Weights) -> Result<(), EngineError> {
    for linear in spec.linears.values() {
        load_linear(weights, linear, None)?;
        weights.release_pages();
    }
    if let Some(mixture) = &spec.mixture {
        load_router(weights, mixture, spec.hidden_size)?;
        if let Some(bias) = &mixture.selection_bias {
            weights.f32(bias, &[mixture.num_experts])?;
        }
    }
    if let Some(sinks) = &spec.sinks {
        weights.f32(sinks, &[spec.num_heads])?;
    }
    spec.norms().try_for_each(|norm| check_norm(norm, weights))
}

fn check_norm(norm: &NormSpec, weights: &Weights) -> Result<(), EngineError> {
    weights.f32(&format!("{}.weight", norm.name), &[norm.len])?;
    if norm.bias {
        weights.f32(&format!("{}.bias", norm.name), &[norm.len])?;
    }
    Ok(())
}

fn check_outer_tensors(config: &ModelConfig, weights: &Weights) -> Result<(), EngineError> {
    check_norm(&config.final_norm(), weights)?;
    if !config.tie_embeddings {
        let (n, k) = (config.vocab_size, config.hidden_size);
        weights.linear(config.family.head_name(), (n, k), false, None)?;
        weights.release_pages();
    }
    Ok(())
}
