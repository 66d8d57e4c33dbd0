//! `quantize --plan`: what the work and its result will cost, from config.json alone.

use std::path::Path;

use anyhow::{Context, Result};
use dualgrain::engine::ModelConfig;
use dualgrain::quant::{Plan, QuantJob, plan};
use dualgrain::{AnyDevice, CpuDevice};

use crate::cli::arguments::Common;
use crate::cli::table::table;
use crate::cli::terminal::Terminal;
use crate::cli::units::{bytes, duration};
use crate::run::bundled::SAMPLE_CALIBRATION;

/// Bytes of text that make a token, at least: tokenizers with larger vocabularies need more.
const BYTES_PER_TOKEN: u64 = 3;

/// Prints the plan of `job`, calibrated on `text`; nothing is written.
pub fn run(job: &QuantJob, text_file: Option<&Path>, common: &Common, terminal: &Terminal) -> Result<()> {
    let config = ModelConfig::load(&job.model_dir)?;
    let text_bytes = match text_file {
        Some(path) => std::fs::metadata(path)
            .with_context(|| format!("reading {}", path.display()))?
            .len(),
        None => SAMPLE_CALIBRATION.len() as u64,
    };
    let tokens = text_bytes.div_ceil(BYTES_PER_TOKEN) as usize;
    let device = AnyDevice::Cpu(CpuDevice::new(common.threads)?);
    let plan = plan(&device, &config, job, Some(tokens))?;
    terminal.result(&plan, &text(&plan))
}

fn text(plan: &Plan) -> String {
    let spills = if plan.spills { ", activations among it" } else { "" };
    let parts = plan
        .memory_parts
        .iter()
        .map(|part| vec![part.name.clone(), bytes(part.size_bytes)]);
    let inference = plan.inference.iter().map(|memory| {
        vec![
            format!("batch {}, {} tokens", memory.batch, memory.context_tokens),
            bytes(memory.w4a8_bytes),
            bytes(memory.a16w4_bytes),
            format!("{:.2}x", memory.ratio()),
        ]
    });
    format!(
        "Quantizing takes about {} and stays within {} of memory.\n\
         It needs {} of disk for the result and {} while it runs{spills}.\n\n{}\n\
         Memory to run the result, beside a model with 4-bit weights, fp16 group scales and zeros, and an fp16 cache:\n\n{}",
        duration(plan.time_s),
        bytes(plan.peak_memory_bytes),
        bytes(plan.output_bytes),
        bytes(plan.scratch_disk_bytes),
        table(&["at the peak", "memory"], &parts.collect::<Vec<_>>()),
        table(
            &["running", "W4A8", "A16W4", "ratio"],
            &inference.collect::<Vec<_>>()
        ),
    )
}
