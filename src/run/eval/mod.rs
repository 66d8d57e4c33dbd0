//! `eval`: perplexity, divergence from the original, tasks.

mod causes;
mod differences;
mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, ensure};
use dualgrain::AnyDevice;
use dualgrain::engine::evaluate::{
    DEFAULT_CONTEXT, Task, TaskReport, Windows, divergence, perplexity, score_task,
};
use dualgrain::engine::tokenizer::Tokenizer;
use dualgrain::engine::{ModelConfig, SessionLimits};
use dualgrain::format::text::notice_of_mark;
use dualgrain_device::CacheFormat;

use crate::cli::arguments::{Common, Eval, EvalKv, OnDevice};
use crate::cli::terminal::Terminal;
use crate::run::bundled;
use crate::run::eval::causes::{MOST_WINDOWS, causes, check_causes};
use crate::run::eval::differences::Differences;
pub use crate::run::eval::report::Report;
use crate::run::model_folder::{self, Opened};

/// Judges a folder and prints the report.
pub fn run(options: &Eval, common: &Common, terminal: &Terminal) -> Result<()> {
    let device = model_folder::device(
        options.device.choice,
        common.threads,
        (&options.model, options.device.memory),
        terminal,
    )?;
    let report = judge(options, &device, terminal)?;
    terminal.result(&report, &report.text())
}

/// Everything `options` asks for, on a device that is there already.
pub fn judge(options: &Eval, device: &Arc<AnyDevice>, terminal: &Terminal) -> Result<Report> {
    // Task files are read first: a malformed line should not cost the time of an evaluation.
    let texts = options.tasks.iter().chain(&options.text);
    texts
        .filter_map(|path| notice_of_mark(path))
        .for_each(|notice| terminal.say(&notice));
    let load = |path: &PathBuf| Ok(Task::load(path, options.limit)?);
    let tasks = options.tasks.iter().map(load).collect::<Result<Vec<_>>>()?;
    check_causes(options)?;
    let (opened, original) = open(options, device, terminal)?;
    let positions = opened.model.config().max_positions;
    let context = options.context.unwrap_or(DEFAULT_CONTEXT.min(positions));
    let mut report = Report::new(options, &opened, context)?;
    if options.text.is_some() || tasks.is_empty() {
        let windows = windows(options, &opened.tokenizer, context)?;
        let models = (&opened, original.as_ref());
        judge_text(options, device, models, &windows, terminal, &mut report)?;
    }
    report.tasks = score(&opened, &tasks, "tasks", terminal)?;
    if let Some(original) = &original {
        report.tasks_reference = score(original, &tasks, "tasks, original", terminal)?;
    }
    terminal.finish();
    Ok(report)
}

/// Rows of logits that scoring holds at most.
const SCORED_ROWS: usize = 128;

/// The model, and the original that it is compared with.
fn open(options: &Eval, device: &Arc<AnyDevice>, terminal: &Terminal) -> Result<(Opened, Option<Opened>)> {
    let cache = options.kv.map(EvalKv::format);
    let mut folders = vec![(options.model.as_path(), cache.clone())];
    folders.extend(options.reference.iter().map(|dir| (dir.as_path(), None)));
    let positions = ModelConfig::load(&options.model)?.max_positions;
    let context = options.context.unwrap_or(DEFAULT_CONTEXT.min(positions));
    let limits = SessionLimits {
        logit_rows: SCORED_ROWS,
        ..SessionLimits::new(1, context, device.step_tokens())
    };
    let memory = (options.device.memory, terminal);
    model_folder::check_memory(&folders, device, limits, memory)?;
    let opened = model_folder::open(&options.model, device, cache)?;
    let Some(reference) = &options.reference else {
        return Ok((opened, None));
    };
    let original = model_folder::open(reference, device, None)?;
    check_same_tokens(&opened.tokenizer, &original.tokenizer, reference)?;
    Ok((opened, Some(original)))
}

/// Two models can only be compared on the same tokens.
fn check_same_tokens(tokenizer: &Tokenizer, original: &Tokenizer, reference: &Path) -> Result<()> {
    let text = bundled::SAMPLE_EVALUATION;
    ensure!(
        tokenizer.encode(text, true)? == original.encode(text, true)?,
        "{}: its tokenizer cuts text into other tokens than the model's: give the original that the model was made from",
        reference.display()
    );
    Ok(())
}

fn windows(options: &Eval, tokenizer: &Tokenizer, context: usize) -> Result<Windows> {
    Ok(match &options.text {
        Some(path) => Windows::from_file(tokenizer, path, context, options.windows)?,
        None => {
            let text = bundled::SAMPLE_EVALUATION;
            Windows::from_text(
                tokenizer,
                "the bundled evaluation text",
                text,
                context,
                options.windows,
            )?
        }
    })
}

/// Perplexity over all windows; divergence over the first `divergence_windows` of them, when there is an original.
fn judge_text(
    options: &Eval,
    device: &Arc<AnyDevice>,
    (opened, original): (&Opened, Option<&Opened>),
    windows: &Windows,
    terminal: &Terminal,
    report: &mut Report,
) -> Result<()> {
    let show = |task: &'static str| {
        move |done: usize, total: usize| terminal.progress(task, "", done as u64, total as u64)
    };
    let Some(original) = original else {
        report.set_perplexity(&perplexity(&opened.model, windows, &mut show("perplexity"))?);
        return Ok(());
    };
    let first = windows.first(options.divergence_windows);
    let both = divergence(
        &original.model,
        &opened.model,
        &first,
        opened.model.device().pool(),
        &mut show("divergence from the original"),
    )?;
    report.set_divergence(&both, Differences::new(&both, &opened.tokenizer)?);
    if options.causes {
        let few = windows.first(options.divergence_windows.min(MOST_WINDOWS));
        report.causes = causes(options, device, (opened, original), &few, terminal)?;
    }
    if first.len() < windows.len() {
        report.set_perplexity(&perplexity(&opened.model, windows, &mut show("perplexity"))?);
        let reference = perplexity(&original.model, windows, &mut show("perplexity of the original"))?;
        report.perplexity_reference = Some(reference.perplexity);
    }
    Ok(())
}

fn score(opened: &Opened, tasks: &[Task], name: &str, terminal: &Terminal) -> Result<Vec<TaskReport>> {
    let context = opened.model.config().max_positions;
    let mut reports = Vec::new();
    for task in tasks {
        let mut show =
            |done: usize, total: usize| terminal.progress(name, &task.name(), done as u64, total as u64);
        reports.push(score_task(&opened.model, &opened.tokenizer, task, context, &mut show)?.0);
    }
    Ok(reports)
}

impl EvalKv {
    pub(super) fn format(self) -> CacheFormat {
        match self {
            Self::F32 => CacheFormat::F32,
            Self::F16 => CacheFormat::F16,
            Self::Int8 => CacheFormat::Int8,
        }
    }
}

/// The options of a plain evaluation of `model` against `reference` on the bundled text.
pub fn bundled(model: &Path, reference: &Path, windows: usize, (device, causes): (OnDevice, bool)) -> Eval {
    Eval {
        model: model.to_owned(),
        reference: Some(reference.to_owned()),
        text: None,
        tasks: Vec::new(),
        context: None,
        windows: Some(windows),
        divergence_windows: windows,
        limit: None,
        kv: None,
        causes,
        device,
    }
}
