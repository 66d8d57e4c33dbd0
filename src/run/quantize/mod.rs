//! `quantize`: a Hugging Face folder in, a W4A8 folder out.

mod plan;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use dualgrain_cpu::CpuDevice;
use dualgrain_engine::tokenizer::Tokenizer;
use dualgrain_engine::{ModelConfig, Storage, Weights};
use dualgrain_format::{ActivationScheme, CacheScheme, GroupSize, TensorScheme};
use dualgrain_quant::smooth::{SmoothPairs, Smoothing};
use dualgrain_quant::{
    JournalPolicy, Monitor, Progress, QuantJob, QuantOptions, QuantSummary, REPORT_HTML, Search,
};
use serde::Serialize;

use crate::cli::arguments::{self, Activations, Common, Kv, LmHead, Quantize, Smooth, SmoothPair};
use crate::cli::interruption::interrupt_flag;
use crate::cli::terminal::Terminal;
use crate::cli::units::{bytes, duration};
use crate::measure::machine;
use crate::run::model_folder;

/// SmoothQuant's own choice.
const DEFAULT_ALPHA: f64 = 0.5;

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
    notice: Option<String>,
}

/// Quantizes (or, with `--plan`, only says what it would cost).
pub fn run(arguments: &Quantize, common: &Common, terminal: &Terminal) -> Result<()> {
    let model = &arguments.model;
    ensure!(model.is_dir(), "{}: no such model folder", model.display());
    let job = job(arguments)?;
    if arguments.plan {
        return plan::run(&job, arguments.calib.as_deref(), common, terminal);
    }
    let text = match &arguments.calib {
        Some(path) => fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?,
        None => {
            terminal
                .say("calibrating on the bundled sample prose; --calib FILE takes text of your own domain");
            model_folder::SAMPLE_CALIBRATION.to_owned()
        }
    };
    let cancel = interrupt_flag()?;
    let started = Instant::now();
    let summary =
        quantize(&job, &text, common.threads, &cancel, terminal).with_context(|| match &arguments.calib {
            Some(path) => format!("quantizing {} on {}", model.display(), path.display()),
            None => format!("quantizing {}", model.display()),
        })?;
    let report = report(&job, &summary, started.elapsed().as_secs_f64())?;
    terminal.result(&report, &report_text(&report))
}

/// Quantizes as `job` says, calibrated on `text`.
pub fn quantize(
    job: &QuantJob,
    text: &str,
    threads: usize,
    cancel: &AtomicBool,
    terminal: &Terminal,
) -> Result<QuantSummary> {
    let config = ModelConfig::load(&job.model_dir)?;
    let tokenizer = Tokenizer::load(&job.model_dir, config.vocab_size)?;
    let tokens = tokenizer.encode(text, true)?;
    ensure!(
        !text.trim().is_empty(),
        "the calibration text is empty: it needs a few thousand words"
    );
    let device = Arc::new(CpuDevice::new(threads)?);
    let show = |p: Progress<'_>| terminal.progress("quantizing", p.phase, p.done, p.total);
    Ok(dualgrain_quant::quantize(
        job,
        &*device,
        &tokens,
        Monitor::new(&show, cancel),
    )?)
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

fn job(arguments: &Quantize) -> Result<QuantJob> {
    check_options(arguments)?;
    let mut job = QuantJob::new(&arguments.model, &arguments.out);
    job.replace = arguments.replace;
    job.journal = journal_policy(arguments);
    job.spill_above_bytes = (arguments.spill_above * 1e9) as u64;
    job.options = QuantOptions {
        group_size: match arguments.group_size.as_str() {
            "channel" => GroupSize::WholeRow,
            size => GroupSize::new(size.parse()?)?,
        },
        search: match arguments.search {
            arguments::Search::TwoPhase => Search::TwoPhase,
            arguments::Search::Exhaustive => Search::Exhaustive,
            arguments::Search::Rtn => Search::Rtn,
        },
        smoothing: match arguments.smooth {
            Smooth::Percentile => arguments
                .percentile
                .map_or(Smoothing::Auto, Smoothing::Percentile),
            Smooth::Alpha => Smoothing::Alpha(arguments.alpha.unwrap_or(DEFAULT_ALPHA)),
            Smooth::Off => Smoothing::Off,
        },
        pairs: pairs(&arguments.smooth_pairs),
        activations: match arguments.activations {
            Activations::PerToken => ActivationScheme::PerToken,
            Activations::Static => ActivationScheme::Static,
        },
        kv_cache: match arguments.kv {
            Kv::Int8 => CacheScheme::Int8,
            Kv::Int8Static => CacheScheme::Int8Static,
            Kv::F16 => CacheScheme::F16,
        },
        lm_head: match arguments.lm_head {
            LmHead::Float => TensorScheme::Float,
            LmHead::Int8 => TensorScheme::W8,
            LmHead::W4a8 => TensorScheme::W4,
        },
        num_windows: arguments.windows,
        window_tokens: match arguments.context {
            Some(tokens) => tokens,
            None => default_window_tokens(&arguments.model)?,
        },
    };
    Ok(job)
}

/// Options that would do nothing are mistakes.
fn check_options(arguments: &Quantize) -> Result<()> {
    let smooths = arguments.smooth == Smooth::Percentile;
    ensure!(
        smooths || arguments.percentile.is_none(),
        "--percentile belongs to --smooth percentile"
    );
    ensure!(
        arguments.alpha.is_none() || arguments.smooth == Smooth::Alpha,
        "--alpha belongs to --smooth alpha"
    );
    Ok(())
}

/// Tokens of a calibration window unless the user says otherwise.
pub fn default_window_tokens(model: &Path) -> Result<usize> {
    let positions = ModelConfig::load(model)?.max_positions;
    Ok(QuantOptions::default().window_tokens.min(positions))
}

fn journal_policy(arguments: &Quantize) -> JournalPolicy {
    match (arguments.resume, arguments.restart) {
        (true, _) => JournalPolicy::Resume,
        (false, true) => JournalPolicy::Restart,
        (false, false) => JournalPolicy::Refuse,
    }
}

fn pairs(chosen: &[SmoothPair]) -> SmoothPairs {
    SmoothPairs {
        norm_qkv: chosen.contains(&SmoothPair::NormQkv),
        norm_up: chosen.contains(&SmoothPair::NormUp),
        up_down: chosen.contains(&SmoothPair::UpDown),
        v_out: chosen.contains(&SmoothPair::VOut),
    }
}
