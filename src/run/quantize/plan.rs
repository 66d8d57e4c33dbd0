//! `quantize --plan`: what the work and its result will cost, from config.json, and from the tokenizer where there is one.

use anyhow::Result;
use dualgrain::engine::ModelConfig;
use dualgrain::engine::tokenizer::Tokenizer;
use dualgrain::quant::{Plan, QuantJob, plan};
use dualgrain::{AnyDevice, CpuDevice};

use crate::cli::arguments::Common;
use crate::cli::table::table;
use crate::cli::terminal::Terminal;
use crate::cli::units::{bytes, duration};

/// Bytes of text that make a token where the model's tokenizer is not there: those with larger vocabularies need more.
const BYTES_PER_TOKEN: f64 = 3.0;

/// Bytes of text that are encoded to see how many tokens all of it has.
const SAMPLE_BYTES: usize = 1 << 18;

/// Prints the plan of `job`, calibrated on `documents`; nothing is written.
pub fn run(job: &QuantJob, documents: &[String], common: &Common, terminal: &Terminal) -> Result<()> {
    let config = ModelConfig::load(&job.model_dir)?;
    let tokenizer = Tokenizer::load(&job.model_dir, config.vocab_size).ok();
    let per_token = tokenizer
        .and_then(|tokenizer| bytes_per_token(&tokenizer, documents))
        .unwrap_or(BYTES_PER_TOKEN);
    let text_bytes: usize = documents.iter().map(String::len).sum();
    let tokens = (text_bytes as f64 / per_token).ceil() as usize;
    let device = AnyDevice::Cpu(CpuDevice::new(common.threads)?);
    let plan = plan(&device, &config, job, Some(tokens))?;
    terminal.result(&plan, &text(&plan))
}

/// Bytes of the first documents by their tokens; `None` without tokens.
fn bytes_per_token(tokenizer: &Tokenizer, documents: &[String]) -> Option<f64> {
    let (mut size_bytes, mut num_tokens) = (0, 0);
    for document in documents {
        let room = SAMPLE_BYTES - size_bytes;
        let part = &document[..document.floor_char_boundary(room)];
        num_tokens += tokenizer.encode(part, true).ok()?.len();
        size_bytes += part.len();
        if part.len() < document.len() {
            break;
        }
    }
    (num_tokens > 0 && size_bytes > 0).then(|| size_bytes as f64 / num_tokens as f64)
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
