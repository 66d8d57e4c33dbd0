//! The parameters of a choice.

use thiserror::Error;

/// How the next token is chosen. Penalties and biases change the logits first; then temperature, top-k, top-p and min-p apply in
/// this order, each to the distribution that the one before left.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Logits are divided by it; 0 takes the most likely token and draws nothing.
    pub temperature: f32,
    /// Keep this many of the most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the fewest most likely tokens whose probabilities sum to at least this; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this fraction as likely as the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Logits of tokens that stand in the prompt or were generated are divided by it where they are positive and
    /// multiplied by it elsewhere; 1 changes nothing (arXiv 1909.05858).
    pub repetition_penalty: f32,
    /// Taken off the logit of every token that was generated at least once.
    pub presence_penalty: f32,
    /// Taken off the logit of a token for every time it was generated.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens, each named once.
    pub logit_bias: Vec<(u32, f32)>,
    /// Report the log-probability of the chosen token and of this many of the most likely ones, before any of the above.
    pub num_logprobs: Option<usize>,
    /// Start of the random sequence: equal seeds, positions and logits give equal tokens, on any device.
    pub seed: u64,
}

/// A parameter is outside its range.
#[derive(Debug, Clone, Copy, Error, PartialEq)]
#[error("{name}: expected {expected}, got {got}")]
pub struct ParameterError {
    /// Which parameter.
    pub name: &'static str,
    /// The allowed range, in words.
    pub expected: &'static str,
    /// The value given.
    pub got: f32,
}

impl SamplingParams {
    /// The most likely token, always.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        logit_bias: Vec::new(),
        num_logprobs: None,
        seed: 0,
    };

    /// Refuses parameters outside their ranges.
    ///
    /// # Errors
    /// The first parameter that is outside its range, with the range.
    pub fn check(&self) -> Result<(), ParameterError> {
        let finite = "a finite number";
        let at_least_0 = "a finite number >= 0";
        let above_0 = "a finite number > 0";
        let Self {
            temperature,
            top_p,
            min_p,
            repetition_penalty,
            ..
        } = *self;
        let mut checks = vec![
            (
                "temperature",
                at_least_0,
                temperature,
                temperature.is_finite() && temperature >= 0.0,
            ),
            ("top_p", "a number in (0, 1]", top_p, top_p > 0.0 && top_p <= 1.0),
            ("min_p", "a number in [0, 1]", min_p, (0.0..=1.0).contains(&min_p)),
            (
                "repetition_penalty",
                above_0,
                repetition_penalty,
                repetition_penalty.is_finite() && repetition_penalty > 0.0,
            ),
            (
                "presence_penalty",
                finite,
                self.presence_penalty,
                self.presence_penalty.is_finite(),
            ),
            (
                "frequency_penalty",
                finite,
                self.frequency_penalty,
                self.frequency_penalty.is_finite(),
            ),
        ];
        checks.extend(
            self.logit_bias
                .iter()
                .map(|&(_, bias)| ("logit_bias", finite, bias, bias.is_finite())),
        );
        match checks.into_iter().find(|&(.., fits)| !fits) {
            None => Ok(()),
            Some((name, expected, got, _)) => Err(ParameterError { name, expected, got }),
        }
    }

    /// Whether the most likely token is taken and nothing is drawn.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0 || self.top_k == 1
    }

    /// Whether a choice depends on the tokens before it.
    pub fn counts_tokens(&self) -> bool {
        self.repetition_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0
    }

    /// Whether penalties or biases may move a logit before a token is chosen.
    pub fn changes_logits(&self) -> bool {
        self.counts_tokens() || !self.logit_bias.is_empty()
    }
}
