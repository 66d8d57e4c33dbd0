//! Timing one combination of batch, prompt and generated tokens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use dualgrain::AnyDevice;
use dualgrain::engine::scheduler::{Event, Scheduler, TokenRequest};
use dualgrain::engine::{Model, ModelConfig, Product, Session, SessionLimits, products};
use dualgrain_device::sampling::SamplingParams;
use serde::Serialize;

use crate::cli::units::bytes;
use crate::measure::machine;
use crate::run::bench::rate::{self, Rate};

/// One combination to time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// Sequences.
    pub batch: usize,
    /// Tokens of each prompt; 0 times decoding alone.
    pub prompt_tokens: usize,
    /// Tokens generated after each; 0 times prompts alone.
    pub generate_tokens: usize,
}

/// Measured speeds of one combination.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Threads that worked.
    pub threads: usize,
    /// Sequences.
    pub batch: usize,
    /// Tokens of each prompt.
    pub prompt_tokens: usize,
    /// Tokens generated after each.
    pub generate_tokens: usize,
    /// Timed rounds.
    pub rounds: usize,
    /// Prompt tokens per second, all sequences together.
    #[serde(flatten, serialize_with = "rate::prefill")]
    pub prefill: Option<Rate>,
    /// Generated tokens per second, all sequences together.
    #[serde(flatten, serialize_with = "rate::decode")]
    pub decode: Option<Rate>,
    /// Operations of the linears' products a second while prompts run; a multiply-add is two.
    pub prefill_ops_per_s: Option<f64>,
    /// These by what the registers alone can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefill_share_of_peak: Option<f64>,
    /// Bytes of packed linears read a second while tokens are generated.
    pub decode_read_bytes_per_s: Option<f64>,
    /// These by what reading memory alone can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode_share_of_read: Option<f64>,
    /// Whether the packed linears are smaller than the last-level cache: memory then bounds nothing.
    pub linears_fit_cache: bool,
    /// Keys and values.
    pub cache_bytes: usize,
    /// Seconds from the folder to a model that can run.
    pub load_s: f64,
    /// Where the time of a decoding step goes on a card.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<OperationTime>,
}

/// Operations of one kind in a step.
#[derive(Debug, Clone, Serialize)]
pub struct OperationTime {
    /// The operation, as the contract calls it.
    pub operation: &'static str,
    /// How many a step has.
    pub count_per_step: f64,
    /// Seconds on the card, all of a step together.
    pub time_per_step_s: f64,
}

/// Steps that are timed operation by operation.
const TIMED_STEPS: usize = 8;

impl Case {
    fn limits(&self, device: &AnyDevice) -> SessionLimits {
        let context_tokens = self.prompt_tokens + self.generate_tokens;
        let limits = SessionLimits::new(self.batch, context_tokens, device.step_tokens().max(self.batch));
        // The scheduler keeps a 32nd of the pages free: with as many more all sequences run at once.
        let num_pages = self.batch * limits.pages_per_sequence();
        SessionLimits {
            num_pages: Some(num_pages + num_pages / 31 + 1),
            ..limits
        }
    }

    /// Refuses what the model can not do, before anything is loaded.
    pub fn check(&self, config: &ModelConfig) -> Result<()> {
        let (prompt, generate) = (self.prompt_tokens, self.generate_tokens);
        ensure!(
            prompt + generate > 0,
            "0 prompt and 0 generated tokens leave nothing to time"
        );
        ensure!(
            prompt + generate <= config.max_positions,
            "{prompt} prompt and {generate} generated tokens do not fit the model's {} positions",
            config.max_positions
        );
        Ok(())
    }

    /// Refuses what does not fit memory beside the model, instead of being killed by the system half-way.
    pub fn check_memory(&self, model: &Model<AnyDevice>) -> Result<()> {
        let limits = self.limits(model.device());
        let needed = Session::required_bytes(model, limits).unwrap_or(u64::MAX);
        if let Some(free_bytes) = model.device().free_bytes() {
            ensure!(
                needed <= free_bytes,
                "batch {} with {} tokens each needs {} beside the model, {} are free: take a smaller --batch",
                limits.num_sequences,
                limits.context_tokens,
                bytes(needed),
                bytes(free_bytes)
            );
        }
        Ok(())
    }

    /// In words.
    pub fn text(&self) -> String {
        format!(
            "batch {}, {} prompt and {} generated tokens",
            self.batch, self.prompt_tokens, self.generate_tokens
        )
    }
}

impl Row {
    /// In a line, for the person who watches.
    pub fn text(&self) -> String {
        let rate = |rate: &Option<Rate>, what: &str| {
            rate.as_ref().map_or(String::new(), |rate| {
                let spread = 100.0 * rate.stddev / rate.mean;
                format!(", {what} {:.1} +- {spread:.0} % tokens/s", rate.median)
            })
        };
        format!(
            "{} threads, batch {}, {}+{} tokens{}{}",
            self.threads,
            self.batch,
            self.prompt_tokens,
            self.generate_tokens,
            rate(&self.prefill, "prefill"),
            rate(&self.decode, "decode")
        )
    }
}

/// One warm-up and `repeat` timed rounds; `None` when `interrupted` was raised before they were done.
pub fn time_case(
    model: &Arc<Model<AnyDevice>>,
    case: &Case,
    repeat: usize,
    interrupted: &AtomicBool,
) -> Result<Option<Row>> {
    case.check(model.config())?;
    case.check_memory(model)?;
    let mut scheduler = Scheduler::new(Session::new(Arc::clone(model), case.limits(model.device()))?);
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    for round in 0..=repeat {
        let Some((prefill_s, decode_s)) = time_round(&mut scheduler, case, interrupted)? else {
            return Ok(None);
        };
        if round > 0 {
            prefill.push((case.batch * case.prompt_tokens) as f64 / prefill_s);
            decode.push((case.batch * case.generate_tokens) as f64 / decode_s);
        }
    }
    let prefill = (case.prompt_tokens > 0).then(|| Rate::of(prefill));
    let decode = (case.generate_tokens > 0).then(|| Rate::of(decode));
    let mut row = Row::new(model, case, prefill, decode);
    row.operations = operation_times(&mut scheduler, case, interrupted)?;
    row.cache_bytes = scheduler.session().memory().cache_bytes;
    row.rounds = repeat;
    Ok(Some(row))
}

impl Row {
    /// What follows from the speeds; rounds, cache and loading are not known here.
    fn new(model: &Model<AnyDevice>, case: &Case, prefill: Option<Rate>, decode: Option<Rate>) -> Self {
        let per_s = |rate: &Option<Rate>| rate.as_ref().map(|rate| rate.median);
        // A step reads every linear once, whatever the batch.
        let read_per_token = model.linear_bytes() as f64 / case.batch as f64;
        let last_level = machine::last_level_cache_bytes();
        Self {
            threads: model.device().num_threads(),
            batch: case.batch,
            prompt_tokens: case.prompt_tokens,
            generate_tokens: case.generate_tokens,
            rounds: 0,
            prefill_ops_per_s: per_s(&prefill).map(|rate| rate * ops_per_token(model, case.prompt_tokens)),
            prefill_share_of_peak: None,
            decode_read_bytes_per_s: per_s(&decode).map(|rate| rate * read_per_token),
            decode_share_of_read: None,
            prefill,
            decode,
            linears_fit_cache: last_level.is_some_and(|cache| model.linear_bytes() < cache),
            cache_bytes: 0,
            load_s: 0.0,
            operations: Vec::new(),
        }
    }
}

/// Operations of the linears' products for each token of a prompt; the head runs on its last token only.
fn ops_per_token(model: &Model<AnyDevice>, prompt_tokens: usize) -> f64 {
    let weights = |product: &Product| {
        let weights = (product.count * product.shape.n * product.shape.k) as f64;
        match product.name {
            "head" => weights / prompt_tokens as f64,
            _ => weights,
        }
    };
    2.0 * products(model.config(), 1).iter().map(weights).sum::<f64>()
}

/// Where a step's time goes on a card: seconds of each kind of operation in a step that decodes, the longest first.
fn operation_times(
    scheduler: &mut Scheduler<AnyDevice>,
    case: &Case,
    interrupted: &AtomicBool,
) -> Result<Vec<OperationTime>> {
    let device = Arc::clone(scheduler.session().model());
    if device.device().cpu().is_some() || case.generate_tokens == 0 {
        return Ok(Vec::new());
    }
    let short = Case {
        generate_tokens: case.generate_tokens.min(TIMED_STEPS),
        ..*case
    };
    let prompts = case.prompt_tokens;
    time_requests(scheduler, case, (prompts, usize::from(prompts > 0)), interrupted)?;
    let steps = short.generate_tokens;
    let run = || time_requests(scheduler, &short, (prompts + 1, steps), interrupted);
    let (done, times) = device.device().operation_times(run)?;
    done?;
    let of_step = |(name, count, time_s): (&'static str, usize, f64)| OperationTime {
        operation: name,
        count_per_step: count as f64 / steps as f64,
        time_per_step_s: time_s / steps as f64,
    };
    let mut times: Vec<OperationTime> = times.into_iter().map(of_step).collect();
    times.sort_by(|a, b| b.time_per_step_s.total_cmp(&a.time_per_step_s));
    Ok(times)
}

/// Seconds for all prompts with the first token after each, and for all generated tokens. Prompts end and are taken up again
/// from the cache, so that neither time has a part of the other.
fn time_round(
    scheduler: &mut Scheduler<AnyDevice>,
    case: &Case,
    interrupted: &AtomicBool,
) -> Result<Option<(f64, f64)>> {
    let prompts = case.prompt_tokens;
    let Some(prefill_s) = time_requests(scheduler, case, (prompts, usize::from(prompts > 0)), interrupted)?
    else {
        return Ok(None);
    };
    let decode_s = time_requests(scheduler, case, (prompts + 1, case.generate_tokens), interrupted)?;
    Ok(decode_s.map(|decode_s| (prefill_s, decode_s)))
}

/// Seconds until every sequence has run its first `prompt_tokens` tokens and was given `new_tokens`; no tokens take no time.
fn time_requests(
    scheduler: &mut Scheduler<AnyDevice>,
    case: &Case,
    (prompt_tokens, new_tokens): (usize, usize),
    interrupted: &AtomicBool,
) -> Result<Option<f64>> {
    if new_tokens == 0 {
        return Ok(Some(0.0));
    }
    let vocab = scheduler.session().model().config().vocab_size as u32;
    for sequence in 0..case.batch {
        let tokens = (0..prompt_tokens).map(|position| token(sequence, position, vocab));
        scheduler.admit(TokenRequest {
            prompt: tokens.collect(),
            sampling: SamplingParams::GREEDY,
            max_tokens: Some(new_tokens),
            end_tokens: Vec::new(),
            keep: prompt_tokens == case.prompt_tokens && case.generate_tokens > 0,
            score_from: None,
        })?;
    }
    let started = Instant::now();
    while !scheduler.is_idle() {
        if interrupted.load(Ordering::Relaxed) {
            return Ok(None);
        }
        for event in scheduler.step().events {
            if let Event::Failed { error, .. } = event {
                bail!("{error}");
            }
        }
    }
    Ok(Some(started.elapsed().as_secs_f64()))
}

/// Some token of the vocabulary, another for each place.
fn token(sequence: usize, position: usize, vocab: u32) -> u32 {
    let of_sequence = (sequence as u32).wrapping_mul(7919);
    let of_position = (position as u32).wrapping_mul(104_729);
    of_sequence.wrapping_add(of_position) % vocab
}
