//! `generate`: continue a prompt, streaming.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};
use dualgrain::AnyDevice;
use dualgrain::engine::tokenizer::Tokenizer;
use dualgrain::engine::{
    Engine, Event, FinishReason, Generation, ModelConfig, Request, SessionLimits, Timings,
};
use dualgrain::format::text::{notice_of_mark, utf8_of};
use dualgrain_device::sampling::Logprobs;
use serde::Serialize;

use crate::cli::arguments::{Common, Generate};
use crate::cli::interruption::interrupt_flag;
use crate::cli::terminal::{Terminal, write_stdout};
use crate::run::{model_folder, sampling};

#[derive(Serialize)]
struct Report {
    prompt: String,
    #[serde(flatten)]
    generation: Generation,
    seed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Vec<TokenLogprobs>>,
    #[serde(flatten)]
    timings: Timings,
}

/// A token that was generated, with natural logarithms of probabilities before temperature, penalties and cuts.
#[derive(Serialize)]
struct TokenLogprobs {
    #[serde(flatten)]
    chosen: Logprob,
    top: Vec<Logprob>,
}

#[derive(Serialize)]
struct Logprob {
    token: u32,
    text: String,
    logprob: f32,
}

/// Continues the prompt; text streams to stdout, timings go to stderr with `-v`.
pub fn run(arguments: &Generate, common: &Common, terminal: &Terminal) -> Result<()> {
    ensure!(
        common.json || arguments.logprobs.is_none(),
        "--logprobs belongs to --json"
    );
    // Wrong options should not cost the time of loading a model.
    let config = model_folder::config(&arguments.model)?;
    let mut options = sampling::options(&arguments.sampling, &arguments.model, terminal)?;
    options.sampling.num_logprobs = arguments.logprobs;
    let prompt = prompt(arguments, terminal)?;
    let device = model_folder::device(
        arguments.device.choice,
        common.threads,
        (&arguments.model, arguments.device.memory),
        terminal,
    )?;
    let tokenizer = Tokenizer::load(&arguments.model, config.vocab_size)?;
    let request = Request {
        prompt: tokenizer.encode(&prompt, true)?,
        options,
        keep: false,
    };
    let limits = limits(arguments, &config, &device, &request)?;
    let memory = (arguments.device.memory, terminal);
    model_folder::check_memory(&[(&arguments.model, None)], &device, limits, memory)?;
    let model = model_folder::load(&arguments.model, &device, None)?;
    let engine = Engine::new(Arc::new(model), Arc::new(tokenizer), limits)?;
    let interrupted = interrupt_flag()?;
    let seed = request.options.sampling.seed;
    let mut stream = Stream {
        engine,
        shown: !common.json,
        interrupted: &interrupted,
        logprobs: Vec::new(),
    };
    let generation = stream
        .run(request)
        .with_context(|| format!("generating with {}", arguments.model.display()))?;
    ensure!(generation.finish_reason != FinishReason::Cancelled, "interrupted");
    let timings = stream.engine.timings();
    if common.json {
        let report = Report {
            prompt,
            generation,
            seed,
            logprobs: arguments.logprobs.map(|_| stream.logprobs),
            timings,
        };
        return terminal.result(&report, "");
    }
    write_stdout("\n")?;
    terminal.detail(&speed(&timings));
    Ok(())
}

/// The text to continue: an argument, standard input, or a file.
fn prompt(arguments: &Generate, terminal: &Terminal) -> Result<String> {
    let (path, bytes) = match (&arguments.file, arguments.prompt.as_deref()) {
        (Some(path), _) => {
            notice_of_mark(path)
                .iter()
                .for_each(|notice| terminal.say(notice));
            let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
            (path.as_path(), bytes)
        }
        (None, Some("-") | None) => {
            let mut bytes = Vec::new();
            let read = std::io::stdin().lock().read_to_end(&mut bytes);
            read.context("reading the prompt from standard input")?;
            (Path::new("standard input"), bytes)
        }
        (None, Some(prompt)) => return Ok(prompt.to_owned()),
    };
    let text = utf8_of(path, bytes)?;
    ensure!(
        !text.is_empty(),
        "{}: expected a text to continue, got nothing",
        path.display()
    );
    Ok(text)
}

/// One generation, its text written as it comes.
struct Stream<'a> {
    engine: Engine<AnyDevice>,
    shown: bool,
    interrupted: &'a AtomicBool,
    logprobs: Vec<TokenLogprobs>,
}

impl Stream<'_> {
    fn run(&mut self, request: Request) -> Result<Generation> {
        let id = self.engine.admit(request)?;
        loop {
            for event in self.engine.step() {
                match event {
                    Event::Token {
                        token,
                        text,
                        logprobs,
                        ..
                    } => {
                        self.show(&text)?;
                        let told = logprobs.map(|logprobs| self.told(token, &logprobs));
                        self.logprobs.extend(told);
                    }
                    Event::Finished { rest, generation, .. } => {
                        self.show(&rest)?;
                        return Ok(generation);
                    }
                    Event::Failed { error, .. } => return Err(error.into()),
                }
            }
            if self.interrupted.load(Ordering::Relaxed) {
                let cancelled = self.engine.cancel(id);
                return cancelled.context("interrupted");
            }
            if self.engine.is_idle() {
                bail!("the engine ended without a word; this is a fault of dualgrain");
            }
        }
    }

    fn show(&self, text: &str) -> Result<()> {
        match self.shown && !text.is_empty() {
            true => write_stdout(text),
            false => Ok(()),
        }
    }

    fn told(&self, token: u32, logprobs: &Logprobs) -> TokenLogprobs {
        let one = |token: u32, logprob: f32| Logprob {
            token,
            text: self
                .engine
                .tokenizer()
                .decode(&[token], false)
                .unwrap_or_default(),
            logprob,
        };
        TokenLogprobs {
            chosen: one(token, logprobs.chosen),
            top: logprobs
                .top
                .iter()
                .map(|&(token, logprob)| one(token, logprob))
                .collect(),
        }
    }
}

/// No more cache than the request can fill.
fn limits(
    arguments: &Generate,
    config: &ModelConfig,
    device: &AnyDevice,
    request: &Request,
) -> Result<SessionLimits> {
    let max_tokens = request.options.max_tokens.unwrap_or(0);
    let needed = request.prompt.len().saturating_add(max_tokens);
    let most = model_folder::context(arguments.sampling.context, config, config.max_positions)?;
    ensure!(
        request.prompt.len() <= most,
        "the prompt has {} tokens, and the context holds {most}{}",
        request.prompt.len(),
        match arguments.sampling.context {
            Some(_) => ": --context takes more",
            None => " (what the model has positions for): shorten it",
        }
    );
    Ok(SessionLimits::new(1, most.min(needed), device.step_tokens()))
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
