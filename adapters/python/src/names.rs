//! The names by which choices are called, as on the command line.

use std::path::PathBuf;

use dualgrain::format::{ActivationScheme, CacheScheme, GroupSize, LinearScheme};
use dualgrain::quant::{JournalPolicy, Search, Smoothing};
use dualgrain::{CacheFormat, DeviceChoice};
use dualgrain_perf::Objective;
use dualgrain_perf::cost::Scheme;
use pyo3::prelude::*;

use crate::fields::Fields;

/// What was chosen of a table of names.
fn of<T: Copy>(table: &[(&str, T)], text: &str) -> Result<T, String> {
    let found = table.iter().find(|(name, _)| *name == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
        format!("one of {}", names.join(", "))
    })
}

/// The device and the threads that were asked for.
pub fn device(fields: &Fields<'_, '_>) -> PyResult<(DeviceChoice, usize)> {
    let expected = |_| "auto, cpu, or cuda:N with the number of a card".to_owned();
    let choice = fields.choice("device", |text| text.parse().map_err(expected))?;
    Ok((choice, fields.value("threads")?))
}

/// A format of the cache to run with.
pub fn cache_format(text: &str) -> Result<CacheFormat, String> {
    match text {
        "f32" => Ok(CacheFormat::F32),
        "f16" => Ok(CacheFormat::F16),
        "int8" => Ok(CacheFormat::Int8),
        _ => Err("one of f32, f16, int8".to_owned()),
    }
}

/// A format of the cache that a folder names.
pub fn cache_scheme(text: &str) -> Result<CacheScheme, String> {
    let table = [
        ("int8", CacheScheme::Int8),
        ("int8-static", CacheScheme::Int8Static),
        ("f16", CacheScheme::F16),
    ];
    of(&table, text)
}

/// How a quantizer finds scales.
pub fn method(text: &str) -> Result<Search, String> {
    let table = [
        ("compensate", Search::Compensate),
        ("two-phase", Search::TwoPhase),
        ("exhaustive", Search::Exhaustive),
        ("rtn", Search::Rtn),
    ];
    of(&table, text)
}

/// Where the scales of activations come from.
pub fn activations(text: &str) -> Result<ActivationScheme, String> {
    let table = [
        ("per-token", ActivationScheme::PerToken),
        ("static", ActivationScheme::Static),
    ];
    of(&table, text)
}

/// What a quantizer makes of the output layer.
pub fn output_layer(text: &str, group_size: GroupSize) -> Result<LinearScheme, String> {
    let table = [
        ("float", LinearScheme::Float),
        ("int8", LinearScheme::W8),
        ("w4a8", LinearScheme::w4(group_size)),
    ];
    of(&table, text)
}

/// What becomes of an earlier run that was not finished.
pub fn journal(text: &str) -> Result<JournalPolicy, String> {
    let table = [
        ("refuse", JournalPolicy::Refuse),
        ("resume", JournalPolicy::Resume),
        ("restart", JournalPolicy::Restart),
    ];
    of(&table, text)
}

/// How activations are smoothed: `auto`, `off`, `percentile:99.5` or `alpha:0.5`.
pub fn smoothing(text: &str) -> Result<Smoothing, String> {
    let expected =
        || "auto, off, percentile:P with P from 0 to 100, or alpha:A with A from 0 to 1".to_owned();
    let number = |text: &str, most: f64| {
        let number: Option<f64> = text.parse().ok();
        number
            .filter(|number| (0.0..=most).contains(number))
            .ok_or_else(expected)
    };
    match text.split_once(':') {
        None if text == "auto" => Ok(Smoothing::Auto),
        None if text == "off" => Ok(Smoothing::Off),
        Some(("percentile", percentile)) => number(percentile, 100.0).map(Smoothing::Percentile),
        Some(("alpha", alpha)) => number(alpha, 1.0).map(Smoothing::Alpha),
        _ => Err(expected()),
    }
}

/// How linears are stored and multiplied, where a model is priced.
pub fn scheme(text: &str) -> Result<Scheme, String> {
    let table = [
        ("w4a8", Scheme::W4a8),
        ("w8a8", Scheme::W8a8),
        ("bf16", Scheme::Bf16),
    ];
    of(&table, text)
}

/// The same for the output layer.
pub fn priced_output_layer(text: &str) -> Result<Scheme, String> {
    let table = [
        ("float", Scheme::Bf16),
        ("int8", Scheme::W8a8),
        ("w4a8", Scheme::W4a8),
    ];
    of(&table, text)
}

/// What is to be least.
pub fn objective(text: &str) -> Result<Objective, String> {
    let table = [
        ("time", Objective::Time),
        ("energy", Objective::Energy),
        ("edp", Objective::Edp),
    ];
    of(&table, text)
}

/// A path, or none.
pub fn path(fields: &Fields<'_, '_>, name: &str) -> PyResult<Option<PathBuf>> {
    fields.value(name)
}
