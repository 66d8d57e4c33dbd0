//! Choosing tokens from rows of logits: the rule of `naive::sample` without sorting a vocabulary.
//!
//! Rows are independent, so threads share them. Of a vocabulary of 128,000 tokens a nucleus needs a few hundred as a rule:
//! the most likely ones are selected and sorted until enough of them are in order. Weights are integers, so it does not
//! matter in which order they are added up.

use std::cell::RefCell;

use dualgrain_device::naive::{
    WHOLE_WEIGHT, adjust, check, drawn_point, least_weight, log_softmax, more_likely, nucleus_weight, weight,
};
use dualgrain_device::sampling::{
    ChosenToken, HostSampler, Logprobs, Sample, SampleError, SampleRow, SamplingParams, TokenCounts,
    TokenMask,
};
use dualgrain_threads::Pool;

use crate::tensor::matrix::Matrix;

/// Candidates that are sorted first; eight times as many while they are too few.
const FIRST_SORTED: usize = 256;

/// Logits whose largest one is found at once; a compiler keeps `LANES` of them in vector registers.
const BLOCK: usize = 512;
const LANES: usize = 16;

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch::new()) };
}

/// Buffers of a thread; they keep their size from token to token.
struct Scratch {
    logits: Vec<f32>,
    candidates: Vec<Candidate>,
}

/// A token that may still be drawn.
#[derive(Clone, Copy)]
struct Candidate {
    token: u32,
    logit: f32,
    weight: u64,
}

/// How the sequence of a row chooses.
struct Rule<'a> {
    params: &'a SamplingParams,
    counts: &'a TokenCounts,
    mask: Option<&'a TokenMask>,
}

impl<'a> Rule<'a> {
    fn of(sampler: &'a HostSampler, slot: usize) -> Self {
        let (params, counts) = sampler.slot(slot);
        let mask = sampler.mask(slot);
        Self { params, counts, mask }
    }

    /// Whether a token may be chosen that is not the most likely one before penalties, biases and masks.
    fn changes_logits(&self) -> bool {
        self.params.changes_logits() || self.mask.is_some()
    }
}

/// Chooses a token for each of `rows` from its row of `logits`.
pub(crate) fn sample(pool: &Pool, sampler: &mut HostSampler, logits: &Matrix, rows: &[SampleRow]) {
    let not_yet = SampleError::NoToken { num_logits: 0 };
    let mut samples = vec![Err(not_yet); rows.len()];
    pool.for_each_chunk(&mut samples, 1, |index, sample| {
        let row = rows[index];
        let rule = Rule::of(sampler, row.slot);
        sample[0] = SCRATCH.with_borrow_mut(|scratch| scratch.sample(logits.row(index), &rule, row.position));
    });
    sampler.keep(rows, samples);
}

impl Scratch {
    const fn new() -> Self {
        Self {
            logits: Vec::new(),
            candidates: Vec::new(),
        }
    }

    fn sample(&mut self, logits: &[f32], rule: &Rule<'_>, position: usize) -> Sample {
        let &Rule { params, mask, .. } = rule;
        let changes_logits = rule.changes_logits();
        let mut best = match most_likely(logits) {
            Err(SampleError::NoToken { num_logits }) if mask.is_some() => {
                return Err(SampleError::NoAllowedToken { num_logits });
            }
            best => best?,
        };
        if params.is_greedy() && !changes_logits && params.num_logprobs.is_none() {
            return Ok(ChosenToken {
                token: best,
                logprobs: None,
            });
        }
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        if changes_logits {
            best = self.adjust(rule)?;
        }
        let token = match params.is_greedy() {
            true => best,
            false => self.draw(best, params, position),
        };
        let logprobs = params
            .num_logprobs
            .map(|count| self.logprobs(logits, token, count));
        Ok(ChosenToken { token, logprobs })
    }

    /// Applies penalties, biases and the mask; the most likely token that is left.
    fn adjust(&mut self, rule: &Rule<'_>) -> Result<u32, SampleError> {
        adjust(&mut self.logits, rule.params, rule.counts);
        let Some(mask) = rule.mask else {
            return most_likely(&self.logits);
        };
        mask.apply(&mut self.logits);
        let num_logits = self.logits.len();
        most_likely(&self.logits).map_err(|_| SampleError::NoAllowedToken { num_logits })
    }

    fn draw(&mut self, best: u32, params: &SamplingParams, position: usize) -> u32 {
        self.collect(self.logits[best as usize], 1.0 / params.temperature);
        if params.top_k > 0 && params.top_k < self.candidates.len() {
            select(&mut self.candidates, params.top_k);
            self.candidates.truncate(params.top_k);
        }
        if params.top_p < 1.0 {
            self.keep_nucleus(params.top_p);
        }
        let least = least_weight(params.min_p);
        self.candidates.retain(|candidate| candidate.weight >= least);
        self.candidates.sort_unstable_by_key(|candidate| candidate.token);
        let total = self.candidates.iter().map(|candidate| candidate.weight).sum();
        let point = drawn_point(params.seed, position, total);
        let mut sum = 0;
        let chosen = self.candidates.iter().find(|candidate| {
            sum += candidate.weight;
            sum > point
        });
        chosen.map_or(best, |candidate| candidate.token)
    }

    /// All tokens that weigh anything. The others are less likely than each of these, so leaving them out changes neither the
    /// first `top_k` that can be drawn nor where a nucleus ends.
    fn collect(&mut self, max: f32, inv_temperature: f32) {
        self.candidates.clear();
        let all = (0..).zip(&self.logits).map(|(token, &logit)| Candidate {
            token,
            logit,
            weight: weight(logit, max, inv_temperature),
        });
        self.candidates
            .extend(all.filter(|candidate| candidate.weight > 0));
        debug_assert!(
            self.candidates
                .iter()
                .any(|candidate| candidate.weight == WHOLE_WEIGHT)
        );
    }

    /// The fewest most likely candidates that weigh enough together.
    fn keep_nucleus(&mut self, top_p: f32) {
        let total = self.candidates.iter().map(|candidate| candidate.weight).sum();
        let target = nucleus_weight(top_p, total);
        let mut sorted = FIRST_SORTED;
        loop {
            let end = sorted.min(self.candidates.len());
            if end < self.candidates.len() {
                select(&mut self.candidates, end);
            }
            self.candidates[..end].sort_unstable_by(order);
            let mut sum = 0;
            let last = self.candidates[..end].iter().position(|candidate| {
                sum += candidate.weight;
                sum >= target
            });
            if let Some(last) = last {
                return self.candidates.truncate(last + 1);
            }
            if end == self.candidates.len() {
                return;
            }
            sorted *= 8;
        }
    }

    fn logprobs(&mut self, logits: &[f32], token: u32, count: usize) -> Logprobs {
        self.candidates.clear();
        let all = (0..).zip(logits).map(|(token, &logit)| Candidate {
            token,
            logit,
            weight: 0,
        });
        self.candidates.extend(all);
        let count = count.min(self.candidates.len());
        if count > 0 && count < self.candidates.len() {
            select(&mut self.candidates, count);
        }
        self.candidates.truncate(count);
        self.candidates.sort_unstable_by(order);
        self.logits.copy_from_slice(logits);
        log_softmax(&mut self.logits);
        let of = |candidate: &Candidate| (candidate.token, self.logits[candidate.token as usize]);
        Logprobs {
            chosen: self.logits[token as usize],
            top: self.candidates.iter().map(of).collect(),
        }
    }
}

/// The index of the largest logit, the first of equals: `naive::check` and `naive::argmax` in one pass.
fn most_likely(logits: &[f32]) -> Result<u32, SampleError> {
    let (mut max, mut first, mut is_sound) = (f32::NEG_INFINITY, 0, true);
    for (index, block) in logits.chunks(BLOCK).enumerate() {
        let (block_max, block_is_sound) = largest(block);
        is_sound &= block_is_sound;
        if block_max > max {
            (max, first) = (block_max, index * BLOCK);
        }
    }
    if !is_sound || max == f32::NEG_INFINITY {
        check(logits)?;
    }
    let in_block = logits[first..].iter().position(|&logit| logit == max);
    Ok((first + in_block.unwrap_or(0)) as u32)
}

/// The largest logit of a block, and whether none is NaN or +inf.
fn largest(block: &[f32]) -> (f32, bool) {
    let mut max = [f32::NEG_INFINITY; LANES];
    let mut is_sound = [true; LANES];
    let (whole, rest) = block.as_chunks::<LANES>();
    let mut take = |lane: usize, logit: f32| {
        max[lane] = if logit > max[lane] { logit } else { max[lane] };
        is_sound[lane] &= logit < f32::INFINITY;
    };
    for logits in whole {
        (0..LANES).for_each(|lane| take(lane, logits[lane]));
    }
    (0..rest.len()).for_each(|lane| take(lane, rest[lane]));
    let max = max.into_iter().fold(f32::NEG_INFINITY, f32::max);
    (max, is_sound == [true; LANES])
}

/// Puts the `count` most likely candidates first, in no order.
fn select(candidates: &mut [Candidate], count: usize) {
    candidates.select_nth_unstable_by(count - 1, order);
}

fn order(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    more_likely((a.token, a.logit), (b.token, b.logit))
}
