//! The whole run: check, calibrate block by block, journal, assemble.

use std::path::Path;

use dualgrain_device::Device;
use dualgrain_engine::{Embedding, EngineError, ModelConfig, Weights};

use crate::calibrate::hidden_states::Stream;
use crate::calibrate::windows::Windows;
use crate::error::QuantError;
use crate::monitor::{Meter, Monitor};
use crate::options::QuantJob;
use crate::report::json::QuantReport;
use crate::run::block::{Context, quantize_block};
use crate::run::checks::{check_job, check_target, check_tensors};
use crate::run::head::quantize_head;
use crate::run::identity::Identity;
use crate::run::journal::{FinishedBlock, Journal};
use crate::run::multiply_adds::model_work;
use crate::run::output;

/// What a run has done.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantSummary {
    /// Errors, outliers and scales of every linear, and notices; also written into the folder.
    pub report: QuantReport,
    /// Blocks that came from the journal of an earlier run.
    pub num_resumed: usize,
}

/// Quantizes the model of `job` on the calibration text `tokens`.
///
/// # Errors
/// See [`QuantError`]; nothing existing is changed then, and finished blocks stay in the journal.
pub fn quantize<D: Device>(
    job: &QuantJob,
    device: &D,
    tokens: &[u32],
    monitor: Monitor<'_>,
) -> Result<QuantSummary, QuantError> {
    let config = ModelConfig::load(&job.model_dir).map_err(EngineError::from)?;
    let windows = check_job(job, &config, tokens)?;
    check_target(job)?;
    let weights = Weights::open(&job.model_dir).map_err(EngineError::from)?;
    let meter = Meter::new(monitor, model_work(&config, &job.options, &windows));
    meter.start("checking the model".into());
    check_tensors(&config, &weights, &meter)?;
    weights.release_pages();
    let embedding = Embedding::load(device, &weights, &config)?;
    weights.finish().map_err(EngineError::from)?;
    // A broken model leaves no journal behind.
    let identity = Identity::of(job, &windows, tokens)?;
    let journal = Journal::open(Journal::path_for(&job.out_dir), job.journal, &identity)?;

    let mut stream = Stream::new(
        device,
        &config,
        &windows,
        spill_dir(job, &config, &windows, &journal),
    )?;
    stream.embed(&embedding, tokens, &windows)?;
    drop(embedding);
    let mut finished = journal.finished_blocks(config.num_layers);
    let num_resumed = finished.len();
    if let Some(last) = num_resumed.checked_sub(1) {
        let (floats, count) = (stream.floats_per_window(), stream.num_windows());
        journal.read_residual(last, floats, count, |window, rows| {
            stream.restore_residual(window, rows)
        })?;
        meter.advance(
            model_work(&config, &job.options, &windows) / config.num_layers as u64 * num_resumed as u64,
        )?;
    }
    let context = Context {
        device,
        config: &config,
        weights: &weights,
        options: &job.options,
        meter: &meter,
    };
    for layer in num_resumed..config.num_layers {
        finished.push(run_block(&context, &mut stream, &journal, layer)?);
    }
    let head = quantize_head(&context, &mut stream)?;
    drop(stream);
    meter.start("writing the model".into());
    let (head, head_report) = head.unzip();
    let linears = finished.iter().flat_map(|block| block.reports.clone());
    let report = QuantReport {
        model: folder_name(&job.model_dir),
        options: job.options.described(),
        num_windows: windows.len(),
        window_tokens: windows.window_len(),
        notice: windows.notice.clone(),
        linears: linears.chain(head_report.flatten()).collect(),
    };
    let parts = (&finished[..], head.as_ref());
    output::assemble(job, &config, &weights, &journal, parts, &report)?;
    journal.clear()?;
    Ok(QuantSummary { report, num_resumed })
}

/// The last part of a folder's path, also of `.`.
fn folder_name(dir: &Path) -> String {
    let whole = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let name = whole.file_name().unwrap_or(whole.as_os_str());
    name.to_string_lossy().into_owned()
}

fn run_block<D: Device>(
    context: &Context<'_, D>,
    stream: &mut Stream<'_, D>,
    journal: &Journal,
    layer: usize,
) -> Result<FinishedBlock, QuantError> {
    let block = quantize_block(context, stream, layer)?;
    let num_windows = stream.num_windows();
    journal.append(layer, &block, num_windows, |window| {
        Ok(stream.residual(window)?.to_vec())
    })?;
    Ok(FinishedBlock {
        cache_scales: block.cache_scales,
        reports: block.reports,
    })
}

/// Where the calibration stream goes when it is too large for memory.
fn spill_dir<'j>(
    job: &QuantJob,
    config: &ModelConfig,
    windows: &Windows,
    journal: &'j Journal,
) -> Option<&'j Path> {
    (stream_bytes(config, windows) > job.spill_above_bytes).then(|| journal.dir())
}

/// Bytes of the calibration stream: residual and attention output of every token.
pub fn stream_bytes(config: &ModelConfig, windows: &Windows) -> u64 {
    let floats = config.hidden_size + config.q_size();
    (windows.len() * windows.window_len() * floats * size_of::<f32>()) as u64
}
