//! How tokens are drawn: what was asked for, and what the model's authors say where nothing was.

use std::path::Path;

use anyhow::Result;
use dualgrain::engine::{GenerateOptions, SamplingDefaults};
use dualgrain_device::sampling::SamplingParams;

use crate::cli::arguments::Sampling;
use crate::cli::terminal::Terminal;

/// The options for the model in `dir`; says what of them its generation_config.json decided.
pub fn options(asked: &Sampling, dir: &Path, terminal: &Terminal) -> Result<GenerateOptions> {
    let defaults = match asked.ignore_defaults {
        true => SamplingDefaults::default(),
        false => SamplingDefaults::load(dir)?,
    };
    if let Some(told) = told(asked, &defaults) {
        terminal.say(&format!(
            "generation_config.json says {told} (--ignore-defaults samples without it)"
        ));
    }
    let sampling = SamplingParams {
        temperature: asked.temperature.or(defaults.temperature).unwrap_or(0.0),
        top_k: asked.top_k.or(defaults.top_k).unwrap_or(0),
        top_p: asked.top_p.or(defaults.top_p).unwrap_or(1.0),
        min_p: asked.min_p.or(defaults.min_p).unwrap_or(0.0),
        repetition_penalty: asked
            .repetition_penalty
            .or(defaults.repetition_penalty)
            .unwrap_or(1.0),
        presence_penalty: asked.presence_penalty,
        frequency_penalty: asked.frequency_penalty,
        seed: asked.seed,
        ..SamplingParams::GREEDY
    };
    sampling.check()?;
    Ok(GenerateOptions {
        max_tokens: Some(asked.max_tokens),
        stop: asked.stop.clone(),
        constraint: None,
        ignore_eos: false,
        sampling,
    })
}

/// What the file decides, in words; `None` where it decides nothing.
fn told(asked: &Sampling, defaults: &SamplingDefaults) -> Option<String> {
    let word = |name: &str, was_asked: bool, value: Option<String>| {
        value
            .filter(|_| !was_asked)
            .map(|value| format!("{name} {value}"))
    };
    let float = |value: Option<f32>| value.map(|value| value.to_string());
    let words = [
        word(
            "temperature",
            asked.temperature.is_some(),
            float(defaults.temperature),
        ),
        word(
            "top-k",
            asked.top_k.is_some(),
            defaults.top_k.map(|k| k.to_string()),
        ),
        word("top-p", asked.top_p.is_some(), float(defaults.top_p)),
        word("min-p", asked.min_p.is_some(), float(defaults.min_p)),
        word(
            "repetition-penalty",
            asked.repetition_penalty.is_some(),
            float(defaults.repetition_penalty),
        ),
    ];
    let words: Vec<String> = words.into_iter().flatten().collect();
    (!words.is_empty()).then(|| words.join(", "))
}
