//! Times of steps, prefill apart from decoding.

use std::time::Duration;

use super::request::Timings;
use super::scheduler::StepReport;

/// Adds up the time of steps.
#[derive(Debug, Default)]
pub(super) struct Clock {
    prompt_tokens: usize,
    prefill: Duration,
    decode_tokens: usize,
    decode: Duration,
}

impl Clock {
    /// Counts a step that took `elapsed`.
    pub fn add(&mut self, elapsed: Duration, report: &StepReport) {
        if report.prompt_tokens > 0 {
            self.prompt_tokens += report.prompt_tokens;
            self.prefill += elapsed;
        } else {
            self.decode_tokens += report.sampled_tokens;
            self.decode += elapsed;
        }
    }

    /// What was counted so far.
    pub fn timings(&self) -> Timings {
        let rate = |tokens: usize, time: Duration| match time.as_secs_f64() {
            time_s if time_s > 0.0 => tokens as f64 / time_s,
            _ => 0.0,
        };
        Timings {
            prompt_tokens: self.prompt_tokens,
            prefill_time_s: self.prefill.as_secs_f64(),
            prefill_tokens_per_s: rate(self.prompt_tokens, self.prefill),
            decode_tokens: self.decode_tokens,
            decode_time_s: self.decode.as_secs_f64(),
            decode_tokens_per_s: rate(self.decode_tokens, self.decode),
        }
    }
}
