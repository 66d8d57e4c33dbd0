//! `eval`: perplexity, divergence from the original, tasks.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use dualgrain_cpu::CpuDevice;
use dualgrain_device::CacheFormat;
use dualgrain_engine::evaluate::{
    DEFAULT_CONTEXT, DivergenceReport, PerplexityReport, Task, TaskReport, Windows, divergence, perplexity,
    score_task,
};
use dualgrain_engine::tokenizer::Tokenizer;
use dualgrain_engine::{Storage, Weights};
use serde::Serialize;

use crate::cli::arguments::{Common, Eval, EvalKv};
use crate::cli::table::table;
use crate::cli::terminal::Terminal;
use crate::cli::units::bytes;
use crate::run::model_folder::{self, Opened};

/// Quality of a model, as far as it was asked for.
#[derive(Debug, Serialize)]
pub struct Report {
    model: String,
    method: String,
    /// Stored bits of the block linears over their weights.
    pub bits_per_weight: f64,
    /// Bytes of the folder's safetensors files.
    pub file_bytes: u64,
    /// Perplexity on the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    perplexity_stderr: Option<f64>,
    /// Perplexity of the original.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity_reference: Option<f64>,
    /// Mean KL(original || model), nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl_divergence: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kl_divergence_stderr: Option<f64>,
    /// Share of positions with the same likeliest token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top1_agreement: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top1_agreement_stderr: Option<f64>,
    /// Predictions behind the perplexity.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    windows: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    divergence_windows: Option<usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tasks: Vec<TaskReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tasks_reference: Vec<TaskReport>,
}

/// Judges a folder and prints the report.
pub fn run(options: &Eval, common: &Common, terminal: &Terminal) -> Result<()> {
    let report = judge(options, common, terminal)?;
    terminal.result(&report, &text(&report))
}

/// Everything `options` asks for.
pub fn judge(options: &Eval, common: &Common, terminal: &Terminal) -> Result<Report> {
    // Task files are read first: a malformed line should not cost the time of an evaluation.
    let tasks = options
        .tasks
        .iter()
        .map(|path| Ok(Task::load(path, options.limit)?))
        .collect::<Result<Vec<_>>>()?;
    let device = Arc::new(CpuDevice::new(common.threads)?);
    let opened = model_folder::open(&options.model, &device, options.kv.map(EvalKv::format))?;
    let original = options
        .reference
        .as_deref()
        .map(|dir| model_folder::open(dir, &device, None))
        .transpose()?;
    if let (Some(original), Some(dir)) = (&original, &options.reference) {
        check_same_tokens(&opened.tokenizer, &original.tokenizer, dir)?;
    }
    let context = options
        .context
        .unwrap_or(DEFAULT_CONTEXT.min(opened.model.config().max_positions));
    let mut report = Report::new(options, &opened, context)?;
    if options.text.is_some() || tasks.is_empty() {
        let windows = windows(options, &opened.tokenizer, context)?;
        judge_text(
            options,
            &opened,
            original.as_ref(),
            &windows,
            terminal,
            &mut report,
        )?;
    }
    report.tasks = score(&opened, &tasks, "tasks", terminal)?;
    if let Some(original) = &original {
        report.tasks_reference = score(original, &tasks, "tasks, original", terminal)?;
    }
    terminal.finish();
    Ok(report)
}

/// Two models can only be compared on the same tokens.
fn check_same_tokens(tokenizer: &Tokenizer, original: &Tokenizer, reference: &Path) -> Result<()> {
    let text = model_folder::SAMPLE_EVALUATION;
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
            let text = model_folder::SAMPLE_EVALUATION;
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
    opened: &Opened,
    original: Option<&Opened>,
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
        &mut show("divergence from the original"),
    )?;
    report.set_divergence(&both);
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
    fn format(self) -> CacheFormat {
        match self {
            Self::F32 => CacheFormat::F32,
            Self::F16 => CacheFormat::F16,
            Self::Int8 => CacheFormat::Int8,
        }
    }
}

impl Report {
    fn new(options: &Eval, opened: &Opened, context: usize) -> Result<Self> {
        let storage = Storage::measure(&Weights::open(&options.model)?, opened.model.config())?;
        Ok(Self {
            model: options.model.display().to_string(),
            method: format!(
                "the text is encoded once and cut into windows of {context} tokens that do not overlap (the rest is \
                 dropped); each window predicts all its tokens but the first"
            ),
            bits_per_weight: storage.bits_per_weight(),
            file_bytes: storage.file_bytes,
            perplexity: None,
            perplexity_stderr: None,
            perplexity_reference: None,
            kl_divergence: None,
            kl_divergence_stderr: None,
            top1_agreement: None,
            top1_agreement_stderr: None,
            tokens: None,
            windows: None,
            divergence_windows: None,
            tasks: Vec::new(),
            tasks_reference: Vec::new(),
        })
    }

    fn set_perplexity(&mut self, report: &PerplexityReport) {
        self.perplexity = Some(report.perplexity);
        self.perplexity_stderr = Some(report.perplexity_stderr);
        self.tokens = Some(report.tokens);
        self.windows = Some(report.windows);
    }

    fn set_divergence(&mut self, report: &DivergenceReport) {
        self.perplexity = Some(report.perplexity);
        self.perplexity_stderr = Some(report.perplexity_stderr);
        self.perplexity_reference = Some(report.perplexity_reference);
        self.kl_divergence = Some(report.kl_divergence);
        self.kl_divergence_stderr = Some(report.kl_divergence_stderr);
        self.top1_agreement = Some(report.top1_agreement);
        self.top1_agreement_stderr = Some(report.top1_agreement_stderr);
        self.tokens = Some(report.tokens);
        self.windows = Some(report.windows);
        self.divergence_windows = Some(report.windows);
    }
}

fn text(report: &Report) -> String {
    let mut lines = format!(
        "{}: {:.3} bits a weight, {} on disk\n",
        report.model,
        report.bits_per_weight,
        bytes(report.file_bytes)
    );
    if let (Some(perplexity), Some(stderr)) = (report.perplexity, report.perplexity_stderr) {
        lines += &format!("perplexity       {perplexity:.3} +- {stderr:.3}\n");
    }
    if let (Some(perplexity), Some(reference)) = (report.perplexity, report.perplexity_reference) {
        let change = 100.0 * (perplexity / reference - 1.0);
        lines += &format!("  of the original {reference:.3} ({change:+.2} %)\n");
    }
    if let (Some(kl), Some(stderr)) = (report.kl_divergence, report.kl_divergence_stderr) {
        lines += &format!("KL divergence    {kl:.5} +- {stderr:.5} nats\n");
    }
    if let (Some(agreement), Some(stderr)) = (report.top1_agreement, report.top1_agreement_stderr) {
        lines += &format!(
            "top-1 agreement  {:.2} +- {:.2} %\n",
            100.0 * agreement,
            100.0 * stderr
        );
    }
    if let (Some(tokens), Some(windows)) = (report.tokens, report.windows) {
        lines += &format!(
            "over {tokens} predictions in {windows} windows: {}\n",
            report.method
        );
    }
    lines + &tasks_text(report)
}

fn tasks_text(report: &Report) -> String {
    if report.tasks.is_empty() {
        return String::new();
    }
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let perplexity = |perplexity: f64| format!("{perplexity:.2}");
    let original = |index: usize| report.tasks_reference.get(index);
    let rows = report.tasks.iter().enumerate().map(|(index, task)| {
        vec![
            task.task.clone(),
            task.items.to_string(),
            percent(task.accuracy),
            percent(task.accuracy_stderr),
            task.accuracy_byte_normalized.map_or("-".into(), percent),
            task.perplexity.map_or("-".into(), perplexity),
            original(index).map_or("-".into(), |original| percent(original.accuracy)),
            original(index)
                .and_then(|original| original.perplexity)
                .map_or("-".into(), perplexity),
            task.cut_items.to_string(),
        ]
    });
    let header = [
        "task",
        "items",
        "accuracy",
        "+-",
        "by bytes",
        "perplexity",
        "accuracy of original",
        "perplexity of original",
        "cut to context",
    ];
    "\n".to_owned() + &table(&header, &rows.collect::<Vec<_>>())
}

/// The options of a plain evaluation of `model` against `reference` on the bundled text.
pub fn bundled(model: &Path, reference: &Path, windows: usize) -> Eval {
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
    }
}
