//! `quickstart`: the bundled model quantized, judged, run and pictured, with nothing but this binary.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use dualgrain::AnyDevice;
use dualgrain::engine::{Engine, GenerateOptions, Request, SessionLimits};
use dualgrain::quant::{JournalPolicy, QuantError, QuantJob, REPORT_HTML};
use serde::Serialize;

use crate::cli::arguments::{Common, Quickstart};
use crate::cli::interruption::interrupt_flag;
use crate::cli::table::table;
use crate::cli::terminal::Terminal;
use crate::cli::units::{bytes, duration};
use crate::run::bench::card::CardMeter;
use crate::run::bench::case::Case;
use crate::run::bench::rate::Rate;
use crate::run::bench::timing::time_case;
use crate::run::model_folder::{self, Opened};
use crate::run::{bundled, eval, quantize};

/// Windows of the bundled text that are calibrated on: a quickstart is to be quick.
const CALIBRATION_WINDOWS: usize = 32;

/// Windows of the bundled text that are judged: all that fit in a few seconds.
const EVAL_WINDOWS: usize = 16;
const SAMPLE_PROMPT: &str = "The old captain looked across the water and";
const SAMPLE_TOKENS: usize = 60;

/// What is timed.
const TIMED: Case = Case {
    batch: 1,
    prompt_tokens: 512,
    generate_tokens: 64,
};
const ROUNDS: usize = 3;

#[derive(Serialize)]
struct Report {
    original: Side,
    quantized: Side,
    perplexity_change: f64,
    kl_divergence: f64,
    top1_agreement: f64,
    bits_per_weight: f64,
    quantize_time_s: f64,
    time_s: f64,
    prompt: &'static str,
    report: PathBuf,
}

/// One row of the table.
#[derive(Serialize)]
struct Side {
    model: PathBuf,
    file_bytes: u64,
    perplexity: f64,
    prefill_tokens_per_s: f64,
    decode_tokens_per_s: f64,
    sample: String,
}

impl Report {
    /// Times are added by whoever took them.
    fn new([original, quantized]: [Side; 2], quality: &eval::Report, picture: PathBuf) -> Self {
        Self {
            original,
            quantized,
            perplexity_change: number(quality.perplexity) / number(quality.perplexity_reference) - 1.0,
            kl_divergence: number(quality.kl_divergence),
            top1_agreement: number(quality.top1_agreement),
            bits_per_weight: quality.bits_per_weight,
            quantize_time_s: 0.0,
            time_s: 0.0,
            prompt: SAMPLE_PROMPT,
            report: picture,
        }
    }
}

/// Runs the whole story and prints a short table and a sample.
pub fn run(options: &Quickstart, common: &Common, terminal: &Terminal) -> Result<()> {
    let started = Instant::now();
    let picture = options.out.join("report.html");
    check_out(options, &picture)?;
    let original = original(options)?;
    let quantized = options.out.join("llama-tiny-w4a8");
    let device = model_folder::device(
        options.device.choice,
        common.threads,
        (&original, options.device.memory),
        terminal,
    )?;
    let cancel = interrupt_flag()?;
    terminal.say("1/3 quantizing the bundled model, calibrated on its own sample prose");
    quantize(&original, &quantized, &device, &cancel, terminal)?;
    let quantize_time_s = started.elapsed().as_secs_f64();
    terminal.say("2/3 judging it against the original on text neither has seen");
    // Models of others may be too large to hold in 32-bit floats.
    let causes = options.model.is_none();
    let judged = eval::bundled(&quantized, &original, EVAL_WINDOWS, (options.device, causes));
    let quality = eval::judge(&judged, &device, terminal)?;
    ensure!(!cancel.load(Ordering::Relaxed), "interrupted");
    terminal.say("3/3 running both");
    let memory = (options.device.memory, terminal);
    let sides = sides([&original, &quantized], &quality, (&device, memory), &cancel)?;
    let html = fs::read_to_string(quantized.join(REPORT_HTML)).context("reading the quantizer's report")?;
    let html = html.replace("</body>", &(quality.section() + "</body>"));
    let mut report = Report::new(sides, &quality, picture);
    report.quantize_time_s = quantize_time_s;
    report.time_s = started.elapsed().as_secs_f64();
    fs::write(&report.report, html).with_context(|| format!("writing {}", report.report.display()))?;
    terminal.result(&report, &text(&report))
}

/// Refuses a place where something of the user's would be replaced.
fn check_out(options: &Quickstart, picture: &Path) -> Result<()> {
    ensure!(
        !options.out.join("config.json").exists(),
        "{} is a model folder: choose another --out",
        options.out.display()
    );
    check_picture(picture)
}

/// The folder that was named, or the bundled model's.
fn original(options: &Quickstart) -> Result<PathBuf> {
    let Some(dir) = &options.model else {
        return bundled::unpack(&options.out);
    };
    ensure!(dir.is_dir(), "{}: no such model folder", dir.display());
    Ok(dir.clone())
}

fn quantize(
    original: &Path,
    quantized: &Path,
    device: &Arc<AnyDevice>,
    cancel: &AtomicBool,
    terminal: &Terminal,
) -> Result<()> {
    let mut job = QuantJob::new(original, quantized);
    job.options.window_tokens = quantize::default_window_tokens(original)?;
    job.replace = true;
    job.journal = JournalPolicy::Restart;
    job.options.num_windows = CALIBRATION_WINDOWS;
    let documents = vec![bundled::SAMPLE_CALIBRATION.to_owned()];
    match quantize::quantize(&job, documents, device, cancel, terminal) {
        Ok(_) => Ok(()),
        // There is no --resume here; a quickstart simply starts anew.
        Err(error) => Err(match error.downcast_ref() {
            Some(QuantError::Cancelled) => anyhow!("interrupted"),
            _ => error,
        }),
    }
}

/// The page may replace one that an earlier quickstart wrote, nothing else.
fn check_picture(picture: &Path) -> Result<()> {
    match fs::read_to_string(picture) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Ok(text) if text.contains("<title>Quantization report") => Ok(()),
        _ => bail!(
            "{} is not a report of an earlier quickstart: choose another --out",
            picture.display()
        ),
    }
}

/// The original and the quantized model, run one after the other.
fn sides(
    [original, quantized]: [&Path; 2],
    quality: &eval::Report,
    device: (&Arc<AnyDevice>, (f64, &Terminal)),
    cancel: &AtomicBool,
) -> Result<[Side; 2]> {
    let side = |dir: &Path, perplexity: Option<f64>| side(dir, device, number(perplexity), cancel);
    Ok([
        side(original, quality.perplexity_reference)?,
        side(quantized, quality.perplexity)?,
    ])
}

fn number(value: Option<f64>) -> f64 {
    value.unwrap_or(f64::NAN)
}

fn side(
    dir: &Path,
    (device, memory): (&Arc<AnyDevice>, (f64, &Terminal)),
    perplexity: f64,
    interrupted: &AtomicBool,
) -> Result<Side> {
    model_folder::check_memory(&[(dir, None)], device, TIMED.limits(device), memory)?;
    let opened = model_folder::open(dir, device, None)?;
    let row = time_case(&opened.model, &TIMED, ROUNDS, &CardMeter::default(), interrupted)?;
    let row = row.ok_or_else(|| anyhow!("interrupted"))?;
    let rate = |rate: Option<Rate>| number(rate.map(|rate| rate.median));
    Ok(Side {
        model: dir.to_owned(),
        file_bytes: quantize::storage(dir)?.file_bytes,
        perplexity,
        prefill_tokens_per_s: rate(row.prefill),
        decode_tokens_per_s: rate(row.decode),
        sample: sample(&opened)?,
    })
}

fn sample(opened: &Opened) -> Result<String> {
    let (model, tokenizer) = (Arc::clone(&opened.model), Arc::clone(&opened.tokenizer));
    let mut engine = Engine::new(model, tokenizer, SessionLimits::new(1, 256, 64))?;
    let request = Request {
        prompt: opened.tokenizer.encode(SAMPLE_PROMPT, true)?,
        options: sample_options(),
        keep: false,
    };
    let mut ignore = |_: &str| std::ops::ControlFlow::Continue(());
    let (generation, _) = engine.generate(request, &mut ignore)?;
    Ok(generation.text)
}

fn sample_options() -> GenerateOptions {
    let mut options = GenerateOptions {
        max_tokens: Some(SAMPLE_TOKENS),
        ..GenerateOptions::default()
    };
    options.sampling.temperature = 0.7;
    options.sampling.top_p = 0.9;
    options.sampling.seed = 1;
    options
}

fn text(report: &Report) -> String {
    let row = |name: &str, side: &Side| {
        vec![
            name.to_owned(),
            bytes(side.file_bytes),
            format!("{:.2}", side.perplexity),
            format!("{:.0}", side.prefill_tokens_per_s),
            format!("{:.0}", side.decode_tokens_per_s),
        ]
    };
    let header = ["model", "size", "perplexity", "prefill tok/s", "decode tok/s"];
    let rows = [
        row("llama-tiny, bf16", &report.original),
        row("llama-tiny, W4A8", &report.quantized),
    ];
    format!(
        "{}\nperplexity {:+.2} %, KL divergence {:.4} nats, top-1 agreement {:.1} %, {:.3} bits a weight\n\n\
         {SAMPLE_PROMPT}{}\n\n\
         {} in all ({} to quantize); errors of every layer: {}\n",
        table(&header, &rows),
        100.0 * report.perplexity_change,
        report.kl_divergence,
        100.0 * report.top1_agreement,
        report.bits_per_weight,
        report.quantized.sample,
        duration(report.time_s),
        duration(report.quantize_time_s),
        report.report.display(),
    )
}
