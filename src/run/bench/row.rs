//! What was measured of one combination.

use dualgrain::AnyDevice;
use dualgrain::engine::Model;
use serde::Serialize;

use crate::measure::machine;
use crate::run::bench::card::{CardMeter, Span, ops_per_token};
use crate::run::bench::case::Case;
use crate::run::bench::rate::{self, Rate};

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
    /// Seconds of a decoding step.
    pub step_s: Option<f64>,
    /// Energy of a generated token, where a card's counter shows it.
    pub energy_per_token_j: Option<f64>,
    /// The least time that the card's ceilings allow for a decoding step, by the measured one.
    pub roofline_share: Option<f64>,
    /// Energy of a prompt token.
    pub prefill_energy_per_token_j: Option<f64>,
    /// As `roofline_share`, for prompts.
    pub prefill_roofline_share: Option<f64>,
    /// Whether the packed linears are smaller than the last-level cache: memory then bounds nothing.
    pub linears_fit_cache: bool,
    /// Keys and values.
    pub cache_bytes: usize,
    /// Seconds from the folder to a model that can run.
    pub load_s: f64,
    /// Where the time of a decoding step goes on a card.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<OperationTime>,
    /// Where the time of all prompts goes there, counted as one step.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prefill_operations: Vec<OperationTime>,
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

    /// What follows from the speeds; rounds, cache and loading are not known here.
    pub fn new(model: &Model<AnyDevice>, case: &Case, (prefill, decode): (&[Span], &[Span])) -> Self {
        let prefill = rate_of(case.batch * case.prompt_tokens, prefill);
        let decode = rate_of(case.batch * case.generate_tokens, decode);
        let per_s = |rate: &Option<Rate>| rate.as_ref().map(|rate| rate.median);
        // A step reads every linear once, whatever the batch; of experts those that its tokens go to.
        let read_per_token = model.bytes_read(case.batch) / case.batch as f64;
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
            step_s: per_s(&decode).map(|rate| case.batch as f64 / rate),
            energy_per_token_j: None,
            roofline_share: None,
            prefill_energy_per_token_j: None,
            prefill_roofline_share: None,
            prefill,
            decode,
            linears_fit_cache: last_level.is_some_and(|cache| model.linear_bytes() < cache),
            cache_bytes: 0,
            load_s: 0.0,
            operations: Vec::new(),
            prefill_operations: Vec::new(),
        }
    }

    /// Adds energy and shares of the roofline, where a card shows them.
    pub fn weigh(
        &mut self,
        model: &Model<AnyDevice>,
        case: &Case,
        meter: &CardMeter,
        (prefill, decode): (&[Span], &[Span]),
    ) {
        let per_token = |spans, rate: &Option<Rate>| Some(meter.power_w(spans)? / rate.as_ref()?.mean);
        self.energy_per_token_j = per_token(decode, &self.decode);
        self.prefill_energy_per_token_j = per_token(prefill, &self.prefill);
        let share = |least_s: Option<f64>, measured_s: Option<f64>| Some(least_s? / measured_s?);
        self.roofline_share = share(meter.least_step_s(model, case), self.step_s);
        let prompt_tokens = (case.batch * case.prompt_tokens) as f64;
        let prefill_s = self.prefill.as_ref().map(|rate| prompt_tokens / rate.median);
        self.prefill_roofline_share = share(meter.least_prefill_s(model, case), prefill_s);
    }
}

/// Tokens a second of each span; `None` of no tokens.
fn rate_of(tokens: usize, spans: &[Span]) -> Option<Rate> {
    let per_s = |(start, end): &Span| tokens as f64 / (*end - *start).as_secs_f64();
    (tokens > 0).then(|| Rate::of(spans.iter().map(per_s).collect()))
}
