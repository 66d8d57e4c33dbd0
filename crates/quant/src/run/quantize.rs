//! The whole run: check, calibrate and quantize block by block, journal, assemble.

use std::path::Path;

use dualgrain_device::Statistics;
use dualgrain_engine::{Embedding, EngineError, ModelConfig, Weights, judge};
use dualgrain_threads::Pool;

use crate::budget::choice::Choice;
use crate::budget::spending::{choose, with_choice};
use crate::calibrate::windows::Windows;
use crate::error::QuantError;
use crate::monitor::{Meter, Monitor};
use crate::options::QuantJob;
use crate::report::json::{LinearReport, QuantReport};
use crate::run::block::steps::quantize_block;
use crate::run::checks::{check_job, check_target, check_tensors};
use crate::run::context::RunContext;
use crate::run::correction::{Streams, notice};
use crate::run::head::{QuantizedHead, quantize_head};
use crate::run::identity::Identity;
use crate::run::journal::{FinishedBlock, Journal};
use crate::run::multiply_adds::run_multiply_adds;
use crate::run::output::assemble;
use crate::run::plan::check_disk;
use crate::transform::rotation::hadamard::hadamard_block_of;
use crate::transform::rotation::original::Original;

/// What a run has done.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantSummary {
    /// Errors, outliers and scales of every linear, and notices; also written into the folder.
    pub report: QuantReport,
    /// Blocks that came from the journal of an earlier run.
    pub num_resumed: usize,
}

/// Quantizes the model of `job` on the calibration text `tokens`. `device` runs the model, `pool` shares what is computed
/// on the host.
///
/// # Errors
/// See [`QuantError`]; nothing existing is changed then, and finished blocks stay in the journal.
pub fn quantize<D: Statistics>(
    job: &QuantJob,
    device: &D,
    pool: &Pool,
    tokens: &[u32],
    monitor: Monitor<'_>,
) -> Result<QuantSummary, QuantError> {
    let mut config = ModelConfig::load(&job.model_dir).map_err(EngineError::from)?;
    let windows = check_job(job, &config, tokens)?;
    if job.options.hadamard_down {
        config.hadamard_down = hadamard_block_of(&config);
    }
    let place = check_target(job)?;
    check_disk::<D>((&config, &windows, tokens.len()), job, &place)?;
    let weights = Weights::open(&job.model_dir).map_err(EngineError::from)?;
    judge(&config, &weights).map_err(EngineError::from)?;
    let original = Original::new(pool, (&config, &weights), job.options.rotate);
    let method = job.options.method();
    let total = run_multiply_adds(&config, &job.options, &windows, &*method);
    let run = RunContext {
        device,
        pool,
        config: &config,
        original: &original,
        options: &job.options,
        method: &*method,
        meter: &Meter::new(monitor, total),
    };
    let embedding = checked_embedding(&run)?;
    // A broken model leaves no journal behind.
    let identity = Identity::of(job, &windows, tokens)?;
    let journal = Journal::open(place.journal(), job.journal, &identity)?;
    let spill = (job.spill_above_bytes, journal.dir());
    let choice = choose(&run, &journal, &embedding, (tokens, &windows), spill)?;
    let chosen = &QuantJob {
        options: with_choice(&job.options, choice.as_ref()),
        ..job.clone()
    };
    let run = RunContext {
        options: &chosen.options,
        ..run
    };
    let streams = Streams::new(&run, (tokens, &windows), &embedding, spill)?;
    drop(embedding);
    let quantized = quantize_linears(&run, streams, &journal)?;

    run.meter.start("writing the model".into());
    let (head, head_report) = quantized.head.unzip();
    let finished = quantized.blocks;
    let report = report(job, &windows, (&finished, head_report.flatten()), choice);
    assemble(chosen, &run, &journal, (&finished, head.as_ref()), &report)?;
    journal.clear()?;
    Ok(QuantSummary {
        report,
        num_resumed: quantized.num_resumed,
    })
}

/// All linears of a model.
struct QuantizedLinears {
    blocks: Vec<FinishedBlock>,
    /// Blocks that came from the journal of an earlier run.
    num_resumed: usize,
    head: Option<QuantizedHead>,
}

/// Quantizes the blocks that the journal does not have, and the head.
fn quantize_linears<'a, D: Statistics>(
    run: &RunContext<'a, D>,
    mut streams: Streams<'a, D>,
    journal: &Journal,
) -> Result<QuantizedLinears, QuantError> {
    let mut blocks = resume(run, &mut streams, journal)?;
    let num_resumed = blocks.len();
    for layer in num_resumed..run.config.num_layers {
        blocks.push(finish_block(run, &mut streams, journal, layer)?);
    }
    let head = quantize_head(run, &mut streams.into_quantized())?;
    Ok(QuantizedLinears {
        blocks,
        num_resumed,
        head,
    })
}

/// Checks every tensor of the model, and loads the embedding.
fn checked_embedding<D: Statistics>(run: &RunContext<'_, D>) -> Result<Embedding<D>, QuantError> {
    run.meter.start("checking the model".into());
    let weights = run.original.weights();
    check_tensors(run.config, weights, run.meter)?;
    weights.release_pages();
    let embedding = run.original.embedding(run.device)?;
    weights.finish().map_err(EngineError::from)?;
    Ok(embedding)
}

/// The blocks of an earlier run; `streams` stand after the last of them then.
fn resume<'a, D: Statistics>(
    run: &RunContext<'a, D>,
    streams: &mut Streams<'a, D>,
    journal: &Journal,
) -> Result<Vec<FinishedBlock>, QuantError> {
    let num_layers = run.config.num_layers;
    let finished = journal.finished_blocks(num_layers);
    if let Some(last) = finished.len().checked_sub(1) {
        let states = &mut streams.quantized;
        let (floats, count) = (states.floats_per_window(), states.num_windows());
        journal.read_residual(last, floats, count, |window, rows| states.restore(window, rows))?;
        let done = run.meter.total() / num_layers as u64 * finished.len() as u64;
        run.meter.advance(done)?;
        (0..=last).try_for_each(|layer| streams.run_original(run, layer))?;
    }
    Ok(finished)
}

/// Quantizes a block and enters it into the journal.
fn finish_block<'a, D: Statistics>(
    run: &RunContext<'a, D>,
    streams: &mut Streams<'a, D>,
    journal: &Journal,
    layer: usize,
) -> Result<FinishedBlock, QuantError> {
    let block = streams.beside_original(run, layer, |states, original| {
        quantize_block(run, (states, original), layer)
    })?;
    let states = &mut streams.quantized;
    let num_windows = states.num_windows();
    journal.append(layer, &block, num_windows, |window| {
        Ok(states.residual(window)?.to_vec())
    })?;
    Ok(FinishedBlock {
        cache_scales: block.cache_scales,
        reports: block.reports,
    })
}

fn report(
    job: &QuantJob,
    windows: &Windows,
    (finished, head): (&[FinishedBlock], Option<LinearReport>),
    choice: Option<Choice>,
) -> QuantReport {
    let linears = finished.iter().flat_map(|block| block.reports.clone());
    QuantReport {
        model: folder_name(&job.model_dir),
        options: job.options.described(),
        num_windows: windows.len(),
        window_tokens: windows.window_len(),
        notice: notice(&job.options, windows),
        choice,
        linears: linears.chain(head).collect(),
    }
}

/// The last part of a folder's path, also of `.`.
fn folder_name(dir: &Path) -> String {
    let whole = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let name = whole.file_name().unwrap_or(whole.as_os_str());
    name.to_string_lossy().into_owned()
}
