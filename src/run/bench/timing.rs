//! Timing one combination of batch, prompt and generated tokens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Result, bail};
use dualgrain::AnyDevice;
use dualgrain::engine::scheduler::{Event, Scheduler, TokenRequest};
use dualgrain::engine::{Model, Session};
use dualgrain_device::sampling::SamplingParams;

use crate::run::bench::card::{CardMeter, Span};
use crate::run::bench::case::Case;
use crate::run::bench::row::{OperationTime, Row};

/// Steps that are timed operation by operation.
const TIMED_STEPS: usize = 8;

/// One warm-up and `repeat` timed rounds; `None` when `interrupted` was raised before they were done.
pub fn time_case(
    model: &Arc<Model<AnyDevice>>,
    case: &Case,
    repeat: usize,
    meter: &CardMeter,
    interrupted: &AtomicBool,
) -> Result<Option<Row>> {
    case.check(model.config())?;
    let mut scheduler = Scheduler::new(Session::new(Arc::clone(model), case.limits(model.device()))?);
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    for round in 0..=repeat {
        let Some((prefill_span, decode_span)) = time_round(&mut scheduler, case, interrupted)? else {
            return Ok(None);
        };
        if round > 0 {
            prefill.push(prefill_span);
            decode.push(decode_span);
        }
    }
    let mut row = Row::new(model, case, (&prefill, &decode));
    row.weigh(model, case, meter, (&prefill, &decode));
    row.operations = operation_times(&mut scheduler, case, interrupted)?;
    row.prefill_operations = prefill_operation_times(&mut scheduler, case, interrupted)?;
    row.cache_bytes = scheduler.session().memory().cache_bytes;
    row.rounds = repeat;
    Ok(Some(row))
}

/// Where a step's time goes on a card: seconds of each kind of operation in a step that decodes, the longest first.
fn operation_times(
    scheduler: &mut Scheduler<AnyDevice>,
    case: &Case,
    interrupted: &AtomicBool,
) -> Result<Vec<OperationTime>> {
    let short = Case {
        generate_tokens: case.generate_tokens.min(TIMED_STEPS),
        ..*case
    };
    let (prompts, steps) = (case.prompt_tokens, short.generate_tokens);
    if steps > 0 && is_on_card(scheduler) {
        time_requests(scheduler, case, (prompts, usize::from(prompts > 0)), interrupted)?;
    }
    times_of_operations(scheduler, &short, (prompts + 1, steps), interrupted)
}

/// The same of all prompts, as if they were one step.
fn prefill_operation_times(
    scheduler: &mut Scheduler<AnyDevice>,
    case: &Case,
    interrupted: &AtomicBool,
) -> Result<Vec<OperationTime>> {
    let prompts = case.prompt_tokens;
    times_of_operations(scheduler, case, (prompts, usize::from(prompts > 0)), interrupted)
}

fn is_on_card(scheduler: &Scheduler<AnyDevice>) -> bool {
    scheduler.session().model().device().cpu().is_none()
}

/// Times operation by operation what [`time_requests`] times as a whole; nothing on the CPU.
fn times_of_operations(
    scheduler: &mut Scheduler<AnyDevice>,
    case: &Case,
    (prompt_tokens, steps): (usize, usize),
    interrupted: &AtomicBool,
) -> Result<Vec<OperationTime>> {
    if !is_on_card(scheduler) || steps == 0 {
        return Ok(Vec::new());
    }
    let model = Arc::clone(scheduler.session().model());
    let run = || time_requests(scheduler, case, (prompt_tokens, steps), interrupted);
    let (done, times) = model.device().operation_times(run)?;
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

/// When all prompts with the first token after each ran, and when all generated tokens did. Prompts end and are taken up again
/// from the cache, so that neither span has a part of the other.
fn time_round(
    scheduler: &mut Scheduler<AnyDevice>,
    case: &Case,
    interrupted: &AtomicBool,
) -> Result<Option<(Span, Span)>> {
    let prompts = case.prompt_tokens;
    let Some(prefill) = time_requests(scheduler, case, (prompts, usize::from(prompts > 0)), interrupted)?
    else {
        return Ok(None);
    };
    let decode = time_requests(scheduler, case, (prompts + 1, case.generate_tokens), interrupted)?;
    Ok(decode.map(|decode| (prefill, decode)))
}

/// From now until every sequence has run its first `prompt_tokens` tokens and was given `new_tokens`; no tokens take no time.
fn time_requests(
    scheduler: &mut Scheduler<AnyDevice>,
    case: &Case,
    (prompt_tokens, new_tokens): (usize, usize),
    interrupted: &AtomicBool,
) -> Result<Option<Span>> {
    if new_tokens == 0 {
        let now = Instant::now();
        return Ok(Some((now, now)));
    }
    let vocab = scheduler.session().model().config().vocab_size as u32;
    for sequence in 0..case.batch {
        let tokens = (0..prompt_tokens).map(|position| token(sequence, position, vocab));
        scheduler.admit(TokenRequest {
            constraint: None,
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
    Ok(Some((started, Instant::now())))
}

/// Some token of the vocabulary, another for each place.
fn token(sequence: usize, position: usize, vocab: u32) -> u32 {
    let of_sequence = (sequence as u32).wrapping_mul(7919);
    let of_position = (position as u32).wrapping_mul(104_729);
    of_sequence.wrapping_add(of_position) % vocab
}
