//! Ranges of parameters: what is checked, and what /openapi.json says.

use std::ops::RangeInclusive;

/// Of `temperature`.
pub const TEMPERATURE: RangeInclusive<f64> = 0.0..=2.0;
/// Of `top_p`.
pub const TOP_P: RangeInclusive<f64> = 1e-6..=1.0;
/// Of `min_p`.
pub const MIN_P: RangeInclusive<f64> = 0.0..=1.0;
/// Of `frequency_penalty` and `presence_penalty`.
pub const PENALTY: RangeInclusive<f64> = -2.0..=2.0;
/// Of `repetition_penalty`.
pub const REPETITION_PENALTY: RangeInclusive<f64> = 1e-3..=100.0;
/// Of numbers in `logit_bias`.
pub const BIAS: RangeInclusive<f64> = -100.0..=100.0;
/// Of `top_k`.
pub const TOP_K: RangeInclusive<i64> = -1..=i32::MAX as i64;
/// Of `max_tokens` and its other names.
pub const MAX_TOKENS: RangeInclusive<i64> = 1..=i32::MAX as i64;
/// Of `n`, answers to one prompt.
pub const CHOICES: RangeInclusive<i64> = 1..=128;
/// Of the most likely tokens that are reported at a place.
pub const LOGPROBS: RangeInclusive<i64> = 0..=20;
/// Of `priority`: smaller is earlier.
pub const PRIORITY: RangeInclusive<i64> = i32::MIN as i64..=i32::MAX as i64;
/// Of `seed`: both kinds of 64 bits.
pub const SEED: RangeInclusive<i128> = i64::MIN as i128..=u64::MAX as i128;

/// Texts that may end an answer.
pub const MAX_STOPS: usize = 16;
/// Bytes of each.
pub const MAX_STOP_BYTES: usize = 1024;
/// Entries of `logit_bias`.
pub const MAX_BIASES: usize = 1024;
/// Entries of `metadata`.
pub const MAX_NOTES: usize = 16;
/// Characters of their names.
pub const MAX_NOTE_NAME_CHARS: usize = 64;
/// Characters of each.
pub const MAX_NOTE_CHARS: usize = 512;
/// Messages of a conversation.
pub const MAX_MESSAGES: usize = 1024;
/// Of `thinking`.
pub const THINKING_TYPES: [&str; 3] = ["enabled", "adaptive", "disabled"];
