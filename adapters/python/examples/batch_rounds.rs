//! Generates for a batch of prompts as often as it is told to: a line on standard input is a round, its answer is the round's seconds.
//! `adapters/python/bench_overhead.py` runs it beside the same batch through Python:
//!
//! `cargo run --release -p dualgrain-python --example batch_rounds -- DIR BATCH PROMPT_TOKENS GENERATE_TOKENS THREADS`

use std::error::Error;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use dualgrain::{AnyDevice, Engine, GenerateOptions, Options, Request, SessionLimits, load};

/// What is run.
struct Case {
    dir: PathBuf,
    batch: usize,
    prompt_tokens: usize,
    generate_tokens: usize,
    threads: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let case = case()?;
    let mut engine = engine(&case)?;
    println!("ready");
    for line in std::io::stdin().lines() {
        line?;
        println!("{}", round(&mut engine, &case)?);
    }
    Ok(())
}

fn case() -> Result<Case, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, numbers @ ..] = &arguments[..] else {
        return Err("expected DIR BATCH PROMPT_TOKENS GENERATE_TOKENS THREADS, got nothing".into());
    };
    let numbers = numbers.iter().map(|number| number.parse());
    let numbers = numbers.collect::<Result<Vec<usize>, _>>()?;
    let [batch, prompt_tokens, generate_tokens, threads] = numbers[..] else {
        return Err(format!("expected 4 numbers behind the folder, got {}", numbers.len()).into());
    };
    Ok(Case {
        dir: dir.into(),
        batch,
        prompt_tokens,
        generate_tokens,
        threads,
    })
}

/// As the Python package makes one of `max_sequences` and `context`.
fn engine(case: &Case) -> Result<Engine<AnyDevice>, dualgrain::Error> {
    let options = Options {
        threads: case.threads,
        ..Options::default()
    };
    let loaded = load(&case.dir, &options)?;
    let context = case.prompt_tokens + case.generate_tokens;
    let step_tokens = loaded.model.device().step_tokens().max(case.batch);
    let limits = SessionLimits::new(case.batch, context, step_tokens);
    Ok(Engine::new(loaded.model, loaded.tokenizer, limits)?)
}

fn round(engine: &mut Engine<AnyDevice>, case: &Case) -> Result<f64, dualgrain::Error> {
    let vocab_size = engine.model().config().vocab_size as u32;
    let request = |sequence: usize| {
        let token = |position: usize| (sequence as u32 * 7919 + position as u32 * 104_729) % vocab_size;
        Request {
            prompt: (0..case.prompt_tokens).map(token).collect(),
            options: GenerateOptions {
                max_tokens: Some(case.generate_tokens),
                ignore_eos: true,
                ..GenerateOptions::default()
            },
            keep: false,
        }
    };
    let started = Instant::now();
    let requests = (0..case.batch).map(request).collect();
    let batch = engine.generate_batch(requests, &mut |_, _| ControlFlow::Continue(()))?;
    let took = started.elapsed().as_secs_f64();
    let tokens: usize = batch
        .generations
        .iter()
        .map(|generation| generation.tokens.len())
        .sum();
    assert_eq!(tokens, case.batch * case.generate_tokens);
    Ok(took)
}
