//! `generate`: continue a prompt, streaming.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use dualgrain::AnyDevice;
use dualgrain::engine::tokenizer::Tokenizer;
use dualgrain::engine::{
    Engine, FinishReason, GenerateOptions, Generation, ModelConfig, Request, SessionLimits, Timings,
};
use dualgrain_device::sampling::SamplingParams;
use serde::Serialize;

use crate::cli::arguments::{Common, Generate, Sampling};
use crate::cli::interruption::interrupt_flag;
use crate::cli::terminal::{Terminal, write_stdout};
use crate::run::model_folder;

#[derive(Serialize)]
struct Report {
    prompt: String,
    #[serde(flatten)]
    generation: Generation,
    #[serde(flatten)]
    timings: Timings,
}

/// Continues the prompt; text streams to stdout, timings go to stderr with `-v`.
pub fn run(arguments: &Generate, common: &Common, terminal: &Terminal) -> Result<()> {
    // Wrong options should not cost the time of loading a model.
    arguments.sampling.options().sampling.check()?;
    let device = model_folder::device(
        arguments.device.choice,
        common.threads,
        (&arguments.model, arguments.device.memory),
        terminal,
    )?;
    let config = ModelConfig::load(&arguments.model)?;
    let tokenizer = Tokenizer::load(&arguments.model, config.vocab_size)?;
    let request = Request {
        prompt: tokenizer.encode(&arguments.prompt, true)?,
        options: arguments.sampling.options(),
        keep: false,
    };
    let limits = limits(&config, &device, &request);
    let memory = (arguments.device.memory, terminal);
    model_folder::check_memory(&[(&arguments.model, None)], &device, limits, memory)?;
    let model = model_folder::load(&arguments.model, &device, None)?;
    let engine = Engine::new(Arc::new(model), Arc::new(tokenizer), limits)?;
    let interrupted = interrupt_flag()?;
    let (generation, timings) = stream(engine, request, arguments, !common.json, &interrupted)?;
    ensure!(generation.finish_reason != FinishReason::Cancelled, "interrupted");
    if common.json {
        let report = Report {
            prompt: arguments.prompt.clone(),
            generation,
            timings,
        };
        return terminal.result(&report, "");
    }
    write_stdout("\n")?;
    terminal.detail(&speed(&timings));
    Ok(())
}

/// Generates, and writes each piece of text as soon as it is there when `shown`.
fn stream(
    mut engine: Engine<AnyDevice>,
    request: Request,
    arguments: &Generate,
    shown: bool,
    interrupted: &AtomicBool,
) -> Result<(Generation, Timings)> {
    let mut broken = None;
    let mut write = |text: &str| {
        if shown {
            broken = write_stdout(text).err();
        }
        if interrupted.load(Ordering::Relaxed) || broken.is_some() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    let generated = engine
        .generate(request, &mut write)
        .with_context(|| format!("generating with {}", arguments.model.display()))?;
    match broken {
        Some(error) => Err(error),
        None => Ok(generated),
    }
}

/// No more cache than the request can fill.
fn limits(config: &ModelConfig, device: &AnyDevice, request: &Request) -> SessionLimits {
    let max_tokens = request.options.max_tokens.unwrap_or(0);
    let tokens = request.prompt.len().saturating_add(max_tokens);
    SessionLimits::new(1, config.max_positions.min(tokens), device.step_tokens())
}

/// Timings as a line.
pub fn speed(timings: &Timings) -> String {
    format!(
        "prompt {} tokens at {:.1} tokens/s; generated {} at {:.1} tokens/s",
        timings.prompt_tokens,
        timings.prefill_tokens_per_s,
        timings.decode_tokens,
        timings.decode_tokens_per_s
    )
}

impl Sampling {
    /// As the engine takes them.
    pub fn options(&self) -> GenerateOptions {
        GenerateOptions {
            max_tokens: Some(self.max_tokens),
            stop: self.stop.clone(),
            constraint: None,
            ignore_eos: false,
            sampling: SamplingParams {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                seed: self.seed,
                ..SamplingParams::GREEDY
            },
        }
    }
}
