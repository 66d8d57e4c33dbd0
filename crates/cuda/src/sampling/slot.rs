//! What the kernel knows of a sequence, and what it says of a row, as words.

use dualgrain_device::naive::least_weight;
use dualgrain_device::sampling::{ChosenToken, Logprobs, Sample, SampleError, SamplingParams};

use crate::error::CudaError;

/// Most likely tokens that can be reported for a row, as `MOST_TOP` in cu/sampling/sample_logprobs.cuh.
pub const MOST_TOP_LOGPROBS: usize = 128;

/// Words of a `Slot` in cu/sampling/sample_row.cuh.
pub(super) const SLOT_WORDS: usize = 16;
/// Words of a `Result` in cu/sampling/sample.cu.
pub(super) const RESULT_WORDS: usize = 8;

const GREEDY: u32 = 1;
const COUNTS: u32 = 2;
const BIASED: u32 = 4;
const LOGPROBS: u32 = 8;
const MASKED: u32 = 16;
/// Where the flags stand in a slot's words.
pub(super) const FLAGS_WORD: usize = 7;
/// What stands for the number of most likely tokens where nothing was asked for.
const NO_LOGPROBS: u32 = u32::MAX;

/// The parameters as the kernel reads them.
///
/// # Errors
/// More log-probabilities than it reports.
pub(super) fn slot_words(params: &SamplingParams, vocab_size: usize) -> Result<[u32; SLOT_WORDS], CudaError> {
    let num_top = params.num_logprobs.unwrap_or(0);
    if num_top > MOST_TOP_LOGPROBS {
        return Err(CudaError::TooLarge {
            what: "number of log-probabilities",
            got: num_top,
        });
    }
    let (least, seed) = (least_weight(params.min_p), params.seed);
    Ok([
        params.temperature.to_bits(),
        (1.0 / params.temperature).to_bits(),
        params.top_p.to_bits(),
        params.repetition_penalty.to_bits(),
        params.presence_penalty.to_bits(),
        params.frequency_penalty.to_bits(),
        u32::try_from(params.top_k).unwrap_or(u32::MAX),
        flags(params),
        least as u32,
        (least >> 32) as u32,
        seed as u32,
        (seed >> 32) as u32,
        num_top as u32,
        light_exponent(params.top_p, vocab_size).to_bits(),
        0,
        0,
    ])
}

/// Where a token's exponent is so small that all such tokens weigh, together, at most half of what the nucleus may leave; the other
/// half, and the hundredth, are more than all roundings.
fn light_exponent(top_p: f32, vocab_size: usize) -> f32 {
    let left = 0.5 * (1.0 - f64::from(top_p)) / vocab_size.max(1) as f64;
    (left.ln() - 0.01) as f32
}

fn flags(params: &SamplingParams) -> u32 {
    let flag = |is_on, flag| if is_on { flag } else { 0 };
    flag(params.is_greedy(), GREEDY)
        | flag(params.counts_tokens(), COUNTS)
        | flag(!params.logit_bias.is_empty(), BIASED)
        | flag(params.num_logprobs.is_some(), LOGPROBS)
}

/// A slot's flags, with or without a mask.
pub(super) fn with_mask(flags: u32, is_masked: bool) -> u32 {
    match is_masked {
        true => flags | MASKED,
        false => flags & !MASKED,
    }
}

/// How many most likely tokens a row reports.
pub(super) fn num_top(words: &[u32]) -> usize {
    match words[4] {
        NO_LOGPROBS => 0,
        count => count as usize,
    }
}

/// The sample that a row's words and its most likely tokens, two words each, stand for.
pub(super) fn sample_of(words: &[u32], top: &[u32], num_logits: usize) -> Sample {
    match words[0] {
        0 => Ok(ChosenToken {
            token: words[1],
            logprobs: (words[4] != NO_LOGPROBS).then(|| Logprobs {
                chosen: f32::from_bits(words[3]),
                top: top
                    .chunks_exact(2)
                    .map(|of| (of[0], f32::from_bits(of[1])))
                    .collect(),
            }),
        }),
        1 => Err(SampleError::Logit {
            token: words[1] as usize,
            got: f32::from_bits(words[2]),
        }),
        2 => Err(SampleError::NoToken { num_logits }),
        _ => Err(SampleError::NoAllowedToken { num_logits }),
    }
}
