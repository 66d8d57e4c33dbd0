//! Judging a folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualgrain::engine::tokenizer::Tokenizer;
use dualgrain::engine::{Storage, Weights};
use dualgrain::evaluate::{
    DEFAULT_CONTEXT, DivergenceReport, Percentiles, PerplexityReport, Task, TaskReport, Windows, divergence,
    perplexity, score_task,
};
use dualgrain::{
    AnyDevice, CacheFormat, DeviceChoice, Error, Loaded, ModelConfig, SAMPLE_EVALUATION, load_on,
};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde::Serialize;

use crate::errors::{ArgumentError, InternalError, exception};
use crate::fields::Fields;
use crate::names;
use crate::watch::{self, Watch};

/// What is to be judged, and on what.
struct Asked {
    model: PathBuf,
    reference: Option<PathBuf>,
    text: Option<PathBuf>,
    tasks: Vec<PathBuf>,
    context: Option<usize>,
    windows: Option<usize>,
    divergence_windows: usize,
    limit: Option<usize>,
    cache: Option<CacheFormat>,
    device: (DeviceChoice, usize),
}

/// What was found out.
#[derive(Serialize)]
struct Report {
    bits_per_weight: f64,
    file_bytes: u64,
    perplexity: Option<PerplexityReport>,
    divergence: Option<Divergence>,
    tasks: Vec<TaskReport>,
    tasks_reference: Vec<TaskReport>,
}

/// A model beside its original.
#[derive(Serialize)]
struct Divergence {
    perplexity: f64,
    perplexity_stderr: f64,
    perplexity_reference: f64,
    perplexity_reference_stderr: f64,
    perplexity_ratio: f64,
    perplexity_ratio_stderr: f64,
    kl_divergence: f64,
    kl_divergence_stderr: f64,
    kl_percentiles: Percentiles,
    top1_agreement: f64,
    top1_agreement_stderr: f64,
    tokens: usize,
    windows: usize,
    context: usize,
}

impl From<DivergenceReport> for Divergence {
    fn from(report: DivergenceReport) -> Self {
        Self {
            perplexity: report.perplexity,
            perplexity_stderr: report.perplexity_stderr,
            perplexity_reference: report.perplexity_reference,
            perplexity_reference_stderr: report.perplexity_reference_stderr,
            perplexity_ratio: report.perplexity_ratio,
            perplexity_ratio_stderr: report.perplexity_ratio_stderr,
            kl_divergence: report.kl_divergence,
            kl_divergence_stderr: report.kl_divergence_stderr,
            kl_percentiles: report.kl_percentiles,
            top1_agreement: report.top1_agreement,
            top1_agreement_stderr: report.top1_agreement_stderr,
            tokens: report.tokens,
            windows: report.windows,
            context: report.context,
        }
    }
}

impl Asked {
    fn new(fields: &Fields<'_, '_>) -> PyResult<Self> {
        Ok(Self {
            model: fields.value("model")?,
            reference: names::path(fields, "reference")?,
            text: names::path(fields, "text")?,
            tasks: fields.value("tasks")?,
            context: fields.value("context")?,
            windows: fields.value("windows")?,
            divergence_windows: fields.value("divergence_windows")?,
            limit: fields.value("limit")?,
            cache: fields.optional_choice("kv_cache", names::cache_format)?,
            device: names::device(fields)?,
        })
    }

    fn judge(&self, watch: &Watch) -> PyResult<Report> {
        // Task files are read first: a malformed line should not cost the time of an evaluation.
        let tasks = self.tasks.iter().map(|path| Task::load(path, self.limit));
        let tasks = tasks.collect::<Result<Vec<_>, _>>().map_err(exception)?;
        let (loaded, original) = self.open()?;
        let storage = storage(&self.model, loaded.model.config())?;
        let mut report = Report {
            bits_per_weight: storage.bits_per_weight(),
            file_bytes: storage.file_bytes,
            perplexity: None,
            divergence: None,
            tasks: score(&loaded, &tasks, "tasks", watch)?,
            tasks_reference: Vec::new(),
        };
        if let Some(original) = &original {
            report.tasks_reference = score(original, &tasks, "tasks, original", watch)?;
        }
        if self.text.is_some() || tasks.is_empty() {
            self.judge_text(&loaded, original.as_ref(), watch, &mut report)?;
        }
        Ok(report)
    }

    /// The model, and the original that it is compared with.
    fn open(&self) -> PyResult<(Loaded, Option<Loaded>)> {
        let folder = |dir: &Path| match dir.is_dir() {
            true => Ok(()),
            false => Err(exception(Error::NoFolder { dir: dir.to_owned() })),
        };
        folder(&self.model)?;
        self.reference.as_deref().map_or(Ok(()), folder)?;
        let chosen = self
            .device
            .0
            .open(self.device.1, &self.model, 1.0)
            .map_err(exception)?;
        let device = Arc::new(chosen.device);
        let load = |dir: &Path, cache| load_on(dir, &device, cache).map_err(exception);
        let loaded = load(&self.model, self.cache.clone())?;
        let original = self.reference.as_deref().map(|dir| load(dir, None)).transpose()?;
        if let Some(original) = &original {
            check_same_tokens(&loaded.tokenizer, &original.tokenizer)?;
        }
        Ok((loaded, original))
    }

    fn judge_text(
        &self,
        loaded: &Loaded,
        original: Option<&Loaded>,
        watch: &Watch,
        report: &mut Report,
    ) -> PyResult<()> {
        let positions = loaded.model.config().max_positions;
        let context = self.context.unwrap_or(DEFAULT_CONTEXT.min(positions));
        let windows = match &self.text {
            Some(path) => Windows::from_file(&loaded.tokenizer, path, context, self.windows),
            None => Windows::from_text(
                &loaded.tokenizer,
                "the bundled evaluation text",
                SAMPLE_EVALUATION,
                context,
                self.windows,
            ),
        };
        let windows = windows.map_err(exception)?;
        report.perplexity =
            Some(perplexity(&loaded.model, &windows, &mut told(watch, "perplexity")).map_err(exception)?);
        if let Some(original) = original {
            report.divergence = Some(self.diverge(loaded, original, &windows, watch)?);
        }
        Ok(())
    }

    fn diverge(
        &self,
        loaded: &Loaded,
        original: &Loaded,
        windows: &Windows,
        watch: &Watch,
    ) -> PyResult<Divergence> {
        if self.divergence_windows == 0 {
            return Err(ArgumentError::new_err(
                "divergence_windows: expected at least 1, got 0",
            ));
        }
        let pool = AnyDevice::pool(loaded.model.device());
        let first = windows.first(self.divergence_windows);
        let mut told = told(watch, "divergence from the original");
        let both = divergence(&original.model, &loaded.model, &first, pool, &mut told);
        Ok(both.map_err(exception)?.into())
    }
}

/// Two models can only be compared on the same tokens.
fn check_same_tokens(tokenizer: &Tokenizer, original: &Tokenizer) -> PyResult<()> {
    let tokens = |tokenizer: &Tokenizer| tokenizer.encode(SAMPLE_EVALUATION, true).map_err(exception);
    match tokens(tokenizer)? == tokens(original)? {
        true => Ok(()),
        false => Err(ArgumentError::new_err(
            "reference: its tokenizer cuts text into other tokens than the model's: give the original that the model was made from",
        )),
    }
}

/// A progress that is unwound where the watch says so: an evaluation has no other way to end.
fn told<'a>(watch: &'a Watch, phase: &'a str) -> impl FnMut(usize, usize) + 'a {
    move |done, total| watch.tell_or_unwind(phase, done as u64, total as u64)
}

fn score(loaded: &Loaded, tasks: &[Task], phase: &str, watch: &Watch) -> PyResult<Vec<TaskReport>> {
    let context = loaded.model.config().max_positions;
    let score = |task: &Task| {
        let phase = format!("{phase}: {}", task.name());
        let scored = score_task(
            &loaded.model,
            &loaded.tokenizer,
            task,
            context,
            &mut told(watch, &phase),
        );
        Ok(scored.map_err(exception)?.0)
    };
    tasks.iter().map(score).collect()
}

fn storage(dir: &Path, config: &ModelConfig) -> PyResult<Storage> {
    let weights = Weights::open(dir).map_err(exception)?;
    Storage::measure(&weights, config).map_err(exception)
}

/// A report as text; what is no number there is null.
pub fn json(report: &impl Serialize) -> PyResult<String> {
    serde_json::to_string(report).map_err(|error| InternalError::new_err(error.to_string()))
}

/// Judges a folder, and gives the report as JSON.
#[pyfunction]
#[pyo3(signature = (arguments, progress=None))]
pub fn evaluate(
    py: Python<'_>,
    arguments: &Bound<'_, PyDict>,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let asked = Asked::new(&Fields(arguments))?;
    let report = watch::run(py, progress, |watch| asked.judge(watch))?;
    json(&report)
}
