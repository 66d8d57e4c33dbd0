//! Choosing a token from a row of logits.

use std::cmp::Ordering;

use super::log_softmax;
use crate::naive::exp;
use crate::sampling::{
    ChosenToken, Logprobs, Sample, SampleError, SamplingParams, TokenCounts, TokenMask, random_u64,
};

/// The weight of the most likely token: a token's weight is its probability by the most likely one's, times this, cut off to an integer.
/// Sums of 2^18 weights stay below 2^58, and a token that is less than 2^-40 as likely as the best is never drawn.
pub const WHOLE_WEIGHT: u64 = 1 << 40;

/// Chooses the token that will stand at `position` of a sequence with these `counts`:
///
/// 1. A logit that is NaN or +inf, or a row of -inf alone, is an error. Log-probabilities are those of [`log_softmax`].
/// 2. [`adjusted`] logits, of which a mask ([`sample_masked`]) makes the forbidden ones -inf; the largest one, of equals that with the lowest id, is the most likely token. Greedy
///    parameters take that token.
/// 3. [`weight`] of every token, an integer.
/// 4. Tokens in the order of [`more_likely`]: the first `top_k`; of those the fewest first ones whose weights sum to at least
///    `ceil(top_p * sum)` (computed in f64); of those the ones that weigh at least `ceil(min_p * 2^40)`.
/// 5. With `r` = [`random_u64`] of seed and position: `floor(r * sum / 2^64)` lies in one token's share when the kept
///    weights are laid side by side in the order of ids. That token is chosen.
pub fn sample(logits: &[f32], params: &SamplingParams, counts: &TokenCounts, position: usize) -> Sample {
    sample_masked(logits, params, counts, None, position)
}

/// [`sample`] among the tokens that `mask` allows, as if all other logits were -inf from step 2 on.
///
/// Logits that are NaN or +inf are errors whether the mask allows their tokens or not. Where no allowed token has a logit above -inf
/// the row is an error of its own, whatever the others are: no token outside a mask is ever chosen. Log-probabilities do
/// not know of the mask: they are those of the model's own distribution, over all tokens.
pub fn sample_masked(
    logits: &[f32],
    params: &SamplingParams,
    counts: &TokenCounts,
    mask: Option<&TokenMask>,
    position: usize,
) -> Sample {
    check_numbers(logits)?;
    let mut logits_now = adjusted(logits, params, counts);
    if let Some(mask) = mask {
        mask.apply(&mut logits_now);
    }
    check_possible(&logits_now, mask.is_some())?;
    let best = argmax(&logits_now);
    let token = match params.is_greedy() {
        true => best,
        false => draw(&logits_now, best, params, position),
    };
    let logprobs = params.num_logprobs.map(|count| logprobs(logits, token, count));
    Ok(ChosenToken { token, logprobs })
}

/// Refuses a row that is no distribution.
///
/// # Errors
/// The first logit that is NaN or +inf; nothing but -inf.
pub fn check(logits: &[f32]) -> Result<(), SampleError> {
    check_numbers(logits)?;
    check_possible(logits, false)
}

/// Refuses a row with a logit that is NaN or +inf.
fn check_numbers(logits: &[f32]) -> Result<(), SampleError> {
    let is_wrong = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
    match logits.iter().position(is_wrong) {
        None => Ok(()),
        Some(token) => Err(SampleError::Logit {
            token,
            got: logits[token],
        }),
    }
}

/// Refuses a row of -inf alone.
fn check_possible(logits: &[f32], is_masked: bool) -> Result<(), SampleError> {
    let num_logits = logits.len();
    match logits.iter().any(|&logit| logit > f32::NEG_INFINITY) {
        true => Ok(()),
        false if is_masked => Err(SampleError::NoAllowedToken { num_logits }),
        false => Err(SampleError::NoToken { num_logits }),
    }
}

/// The logits after penalties, then biases; no finite logit becomes infinite.
pub fn adjusted(logits: &[f32], params: &SamplingParams, counts: &TokenCounts) -> Vec<f32> {
    let mut logits = logits.to_vec();
    adjust(&mut logits, params, counts);
    logits
}

/// [`adjusted`] in place. Each step is rounded: the repetition penalty, `- count * frequency`, `- presence`, `+ bias`.
pub fn adjust(logits: &mut [f32], params: &SamplingParams, counts: &TokenCounts) {
    let finite = |logit: f32| logit.clamp(f32::MIN, f32::MAX);
    for (token, count) in counts.iter().filter(|_| params.counts_tokens()) {
        let Some(logit) = logits.get_mut(token as usize).filter(|logit| logit.is_finite()) else {
            continue;
        };
        *logit = match *logit > 0.0 {
            true => finite(*logit / params.repetition_penalty),
            false => finite(*logit * params.repetition_penalty),
        };
        if count.generated > 0 {
            *logit = finite(*logit - count.generated as f32 * params.frequency_penalty);
            *logit = finite(*logit - params.presence_penalty);
        }
    }
    for &(token, bias) in &params.logit_bias {
        if let Some(logit) = logits.get_mut(token as usize).filter(|logit| logit.is_finite()) {
            *logit = finite(*logit + bias);
        }
    }
}

/// The index of the largest logit, the first of equals.
pub fn argmax(logits: &[f32]) -> u32 {
    let larger = |best: (usize, f32), (token, &logit): (usize, &f32)| {
        if logit > best.1 { (token, logit) } else { best }
    };
    logits.iter().enumerate().fold((0, f32::NEG_INFINITY), larger).0 as u32
}

/// `floor(2^40 * exp((logit - max) * inv_temperature))`: the difference and its product rounded, `exp` that of `naive`.
/// The largest logit weighs 2^40 whatever the temperature.
#[inline(always)]
pub fn weight(logit: f32, max: f32, inv_temperature: f32) -> u64 {
    if logit == max {
        return WHOLE_WEIGHT;
    }
    (exp((logit - max) * inv_temperature) * WHOLE_WEIGHT as f32) as u64
}

/// Orders (token, logit): the larger logit first, of equals the lower id.
pub fn more_likely(a: (u32, f32), b: (u32, f32)) -> Ordering {
    let by_logit = b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal); // never NaN here; 0 equals -0
    by_logit.then(a.0.cmp(&b.0))
}

/// The sum of weights that a nucleus must reach: `ceil(top_p * total)` in f64, at least 1 and at most `total`.
pub fn nucleus_weight(top_p: f32, total: u64) -> u64 {
    ((f64::from(top_p) * total as f64).ceil() as u64).clamp(1, total)
}

/// The least weight that `min_p` keeps.
pub fn least_weight(min_p: f32) -> u64 {
    (f64::from(min_p) * WHOLE_WEIGHT as f64).ceil() as u64
}

/// The point in `0..total` at which a sequence's choice at a position falls.
pub fn drawn_point(seed: u64, position: usize, total: u64) -> u64 {
    let random = u128::from(random_u64(seed, position as u64));
    ((random * u128::from(total)) >> 64) as u64
}

fn draw(logits: &[f32], best: u32, params: &SamplingParams, position: usize) -> u32 {
    let (max, inv_temperature) = (logits[best as usize], 1.0 / params.temperature);
    let mut kept: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
    let weight_of = |&(_, logit): &(u32, f32)| weight(logit, max, inv_temperature);
    kept.sort_by(|a, b| more_likely(*a, *b));
    if params.top_k > 0 {
        kept.truncate(params.top_k);
    }
    if params.top_p < 1.0 {
        let target = nucleus_weight(params.top_p, kept.iter().map(weight_of).sum());
        let mut sum = 0;
        let last = kept.iter().position(|token| {
            sum += weight_of(token);
            sum >= target
        });
        kept.truncate(last.map_or(kept.len(), |last| last + 1));
    }
    kept.retain(|token| weight_of(token) >= least_weight(params.min_p));
    kept.sort_by_key(|&(token, _)| token);
    let point = drawn_point(params.seed, position, kept.iter().map(weight_of).sum());
    let mut sum = 0;
    let chosen = kept.iter().find(|token| {
        sum += weight_of(token);
        sum > point
    });
    chosen.map_or(best, |&(token, _)| token)
}

fn logprobs(logits: &[f32], token: u32, count: usize) -> Logprobs {
    let mut values = logits.to_vec();
    log_softmax(&mut values);
    let mut order: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
    order.sort_by(|a, b| more_likely(*a, *b));
    order.truncate(count);
    Logprobs {
        chosen: values[token as usize],
        top: order
            .into_iter()
            .map(|(token, _)| (token, values[token as usize]))
            .collect(),
    }
}

#[cfg(test)]
mod tests;
