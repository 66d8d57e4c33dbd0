//! `quantize`: a Hugging Face folder in, a W4A8 folder out.

mod job;
mod plan;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result};
use dualgrain::calibration_documents;
use dualgrain::engine::{ModelConfig, Storage, Weights};
use dualgrain::format::text::notice_of_mark;
use dualgrain::quant::{Choice, Monitor, Progress, QuantJob, QuantSummary, REPORT_HTML, plan};
use dualgrain::{AnyDevice, CpuDevice, Quantizer};
use dualgrain_hub::ModelName;
use serde::Serialize;

use crate::cli::arguments::{Common, Quantize};
use crate::cli::interruption::interrupt_flag;
use crate::cli::terminal::Terminal;
use crate::cli::units::{bytes, duration};
use crate::measure::machine;
use crate::run::bundled;
use crate::run::model_folder;
pub use crate::run::quantize::job::default_window_tokens;

/// What a finished run says.
#[derive(Serialize)]
struct Report {
    model: String,
    out: String,
    time_s: f64,
    peak_resident_bytes: Option<u64>,
    bits_per_weight: f64,
    file_bytes: u64,
    original_bytes: u64,
    mean_weight_nmse: f64,
    resumed_blocks: usize,
    calibration_tokens: usize,
    choice: Option<Choice>,
    notice: Option<String>,
}

/// Quantizes (or, with `--plan`, only says what it would cost).
pub fn run(arguments: &Quantize, common: &Common, terminal: &Terminal) -> Result<()> {
    let model = &arguments.model;
    if !(arguments.plan && is_without_weights(model)) {
        model_folder::judged(model, terminal)?;
    }
    let job = job::job(arguments)?;
    if arguments.plan {
        return plan::run(&job, &calibration(arguments)?, common, terminal);
    }
    if arguments.calib.is_empty() {
        terminal.say("calibrating on the bundled sample prose; --calib FILE takes text of your own domain");
    }
    let notices = arguments.calib.iter().filter_map(|path| notice_of_mark(path));
    notices.for_each(|notice| terminal.say(&notice));
    let documents = calibration(arguments)?;
    let device = model_folder::device(arguments.device, common.threads, (model, 1.0), terminal)?;
    let cancel = interrupt_flag()?;
    let started = Instant::now();
    let summary =
        quantize(&job, documents, &device, &cancel, terminal).with_context(|| said_of(arguments))?;
    let report = report(&job, &summary, started.elapsed().as_secs_f64())?;
    terminal.result(&report, &report_text(&report))
}

/// Whether a folder is what a plan takes from the hub.
fn is_without_weights(model: &Path) -> bool {
    ModelName::of_snapshot(model).is_some() && Weights::open(model).is_err()
}

/// Refuses what the options, the configuration, the output or the disk would have refused, before the weights are there.
pub fn check_before_download(arguments: &Quantize) -> Result<()> {
    let job = job::job(arguments)?;
    let config = ModelConfig::load(&job.model_dir)?;
    plan(&CpuDevice::new(1)?, &config, &job, None)?;
    Ok(())
}

/// What is said of a run that failed.
fn said_of(arguments: &Quantize) -> String {
    let model = arguments.model.display();
    let files: Vec<String> = arguments
        .calib
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    match files.is_empty() {
        true => format!("quantizing {model}"),
        false => format!("quantizing {model} on {}", files.join(" and ")),
    }
}

/// The documents of all files that were named, or the bundled prose.
fn calibration(arguments: &Quantize) -> Result<Vec<String>> {
    if arguments.calib.is_empty() {
        return Ok(vec![bundled::SAMPLE_CALIBRATION.to_owned()]);
    }
    let mut documents = Vec::new();
    for path in &arguments.calib {
        documents.extend(calibration_documents(path)?);
    }
    Ok(documents)
}

/// Quantizes as `job` says on `device`, calibrated on `documents`.
pub fn quantize(
    job: &QuantJob,
    documents: Vec<String>,
    device: &Arc<AnyDevice>,
    cancel: &AtomicBool,
    terminal: &Terminal,
) -> Result<QuantSummary> {
    let show = |p: Progress<'_>| terminal.progress("quantizing", p.phase, p.done, p.total);
    let quantizer = Quantizer::of_job(job.clone())
        .documents(documents)
        .on(Arc::clone(device));
    quantizer
        .run_watched(Monitor::new(&show, cancel))
        .map_err(|error| match error {
            // Who asks whether it was cancelled asks for the quantizer's own error.
            dualgrain::Error::Quant(error) => error.into(),
            error => error.into(),
        })
}

/// Bytes of the tensors in a folder and stored bits per weight of its block linears.
pub fn storage(dir: &Path) -> Result<Storage> {
    Ok(Storage::measure(&Weights::open(dir)?, &ModelConfig::load(dir)?)?)
}

fn report(job: &QuantJob, summary: &QuantSummary, time_s: f64) -> Result<Report> {
    let (before, after) = (storage(&job.model_dir)?, storage(&job.out_dir)?);
    let linears = &summary.report.linears;
    Ok(Report {
        model: job.model_dir.display().to_string(),
        out: job.out_dir.display().to_string(),
        time_s,
        peak_resident_bytes: machine::peak_resident_bytes(),
        bits_per_weight: after.bits_per_weight(),
        file_bytes: after.file_bytes,
        original_bytes: before.file_bytes,
        mean_weight_nmse: linears.iter().map(|l| l.weight_nmse).sum::<f64>() / linears.len().max(1) as f64,
        resumed_blocks: summary.num_resumed,
        calibration_tokens: summary.report.num_windows * summary.report.window_tokens,
        choice: summary.report.choice.clone(),
        notice: summary.report.notice.clone(),
    })
}

fn report_text(report: &Report) -> String {
    let mut text = format!(
        "{}: {} -> {}, {:.3} bits a weight in the block linears, in {}\n",
        report.out,
        bytes(report.original_bytes),
        bytes(report.file_bytes),
        report.bits_per_weight,
        duration(report.time_s),
    );
    if let Some(choice) = &report.choice {
        text += &format!("the budget was spent on {}\n", choice.summary());
    }
    if let Some(peak) = report.peak_resident_bytes {
        text += &format!(
            "peak memory {}; errors of every layer in {}/{REPORT_HTML}\n",
            bytes(peak),
            report.out
        );
    }
    if let Some(notice) = &report.notice {
        text += &format!("note: {notice}\n");
    }
    text + &format!(
        "next: dualgrain eval {} --reference {}\n",
        report.out, report.model
    )
}
