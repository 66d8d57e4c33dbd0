//! Quantizing a folder.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dualgrain::engine::ModelConfig;
use dualgrain::format::GroupSize;
use dualgrain::quant::{QuantJob, QuantOptions, Search, SmoothPairs, Smoothing};
use dualgrain::{
    DeviceChoice, Error, Monitor, Progress, QuantSummary, Quantizer, SAMPLE_CALIBRATION, SchemeRule,
    calibration_documents,
};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::{ArgumentError, exception};
use crate::fields::Fields;
use crate::names;
use crate::watch::{self, Watch};

/// Everything that a run needs.
struct Asked {
    job: QuantJob,
    /// Whether a window has as many tokens as the model has positions for, at most.
    fits_window: bool,
    texts: Vec<String>,
    files: Vec<PathBuf>,
    device: (DeviceChoice, usize),
}

impl Asked {
    fn new(fields: &Fields<'_, '_>) -> PyResult<Self> {
        let (model, out): (PathBuf, PathBuf) = (fields.value("model")?, fields.value("out")?);
        let window_tokens: Option<usize> = fields.value("window_tokens")?;
        let mut job = QuantJob::new(model, out);
        job.replace = fields.value("replace")?;
        job.journal = fields.choice("journal", names::journal)?;
        job.spill_above_bytes = spill(fields)?;
        job.options = options(fields, window_tokens)?;
        Ok(Self {
            job,
            fits_window: window_tokens.is_none(),
            texts: fields.value("texts")?,
            files: fields.value("files")?,
            device: names::device(fields)?,
        })
    }

    fn run(mut self, watch: &Watch) -> PyResult<QuantSummary> {
        let dir = self.job.model_dir.as_path();
        if !dir.is_dir() {
            return Err(exception(Error::NoFolder { dir: dir.to_owned() }));
        }
        if self.fits_window {
            let positions = ModelConfig::load(dir).map_err(exception)?.max_positions;
            self.job.options.window_tokens = self.job.options.window_tokens.min(positions);
        }
        let documents = self.documents()?;
        let chosen = self.device.0.open(self.device.1, dir, 1.0).map_err(exception)?;
        let quantizer = Quantizer::of_job(self.job)
            .documents(documents)
            .on(Arc::new(chosen.device));
        watched(&quantizer, watch)
    }

    /// All texts and files together, or the bundled prose.
    fn documents(&self) -> PyResult<Vec<String>> {
        if self.texts.is_empty() && self.files.is_empty() {
            return Ok(vec![SAMPLE_CALIBRATION.to_owned()]);
        }
        let mut documents = self.texts.clone();
        for file in &self.files {
            documents.extend(calibration_documents(file).map_err(exception)?);
        }
        Ok(documents)
    }
}

/// Runs the quantizer. What the watch says ends it, and is what is raised then.
fn watched(quantizer: &Quantizer, watch: &Watch) -> PyResult<QuantSummary> {
    let (cancel, ended) = (AtomicBool::new(false), RefCell::new(None));
    let show = |progress: Progress<'_>| {
        if cancel.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = watch.tell(progress.phase, progress.done, progress.total) {
            cancel.store(true, Ordering::Relaxed);
            *ended.borrow_mut() = Some(error);
        }
    };
    let summary = quantizer.run_watched(Monitor::new(&show, &cancel));
    match ended.take() {
        Some(error) => Err(error),
        None => summary.map_err(exception),
    }
}

fn options(fields: &Fields<'_, '_>, window_tokens: Option<usize>) -> PyResult<QuantOptions> {
    let usual = QuantOptions::default();
    let group_size = fields.choice("group_size", |text| {
        text.parse::<GroupSize>()
            .map_err(|_| "32, 64, 128 or \"channel\"".to_owned())
    })?;
    let search = fields.choice("method", names::method)?;
    let rotate = fields.value("rotate")?;
    let at_least_one = |name: &str, count: usize| match count {
        0 => Err(ArgumentError::new_err(format!(
            "{name}: expected at least 1, got 0"
        ))),
        count => Ok(count),
    };
    Ok(QuantOptions {
        group_size,
        schemes: schemes(fields)?,
        bits: fields.value("bits")?,
        search,
        rotate,
        hadamard_down: fields.value("hadamard_down")?,
        smoothing: smoothing(fields, rotate)?,
        pairs: SmoothPairs::default(),
        activations: fields.choice("activations", names::activations)?,
        kv_cache: fields.choice("kv_cache", names::cache_scheme)?,
        lm_head: fields.choice("lm_head", |text| names::output_layer(text, group_size))?,
        num_windows: at_least_one("windows", windows(fields, search)?)?,
        window_tokens: at_least_one("window_tokens", window_tokens.unwrap_or(usual.window_tokens))?,
        ..usual
    })
}

fn windows(fields: &Fields<'_, '_>, search: Search) -> PyResult<usize> {
    let windows: Option<usize> = fields.value("windows")?;
    Ok(windows.unwrap_or(search.default_windows()))
}

/// A rotated model has no outliers to smooth.
fn smoothing(fields: &Fields<'_, '_>, rotate: bool) -> PyResult<Smoothing> {
    let usual = if rotate { Smoothing::Off } else { Smoothing::Auto };
    let asked = fields.optional_choice("smoothing", names::smoothing)?;
    Ok(asked.unwrap_or(usual))
}

fn schemes(fields: &Fields<'_, '_>) -> PyResult<Vec<SchemeRule>> {
    let rules: Vec<String> = fields.value("schemes")?;
    let parsed = rules.iter().map(|rule| rule.parse::<SchemeRule>());
    let parsed = parsed.map(|rule| rule.map_err(|error| ArgumentError::new_err(format!("schemes: {error}"))));
    parsed.collect()
}

fn spill(fields: &Fields<'_, '_>) -> PyResult<u64> {
    let above_gb: f64 = fields.value("spill_above_gb")?;
    match above_gb >= 0.0 {
        true => Ok((above_gb * 1e9) as u64),
        false => Err(ArgumentError::new_err(format!(
            "spill_above_gb: expected a number from 0 on, got {above_gb}"
        ))),
    }
}

/// Quantizes, and gives the report as JSON and how many blocks came from an earlier run.
#[pyfunction]
#[pyo3(signature = (arguments, progress=None))]
pub fn quantize(
    py: Python<'_>,
    arguments: &Bound<'_, PyDict>,
    progress: Option<Py<PyAny>>,
) -> PyResult<(String, usize)> {
    let asked = Asked::new(&Fields(arguments))?;
    let summary = watch::run(py, progress, |watch| asked.run(watch))?;
    Ok((crate::evaluation::json(&summary.report)?, summary.num_resumed))
}
