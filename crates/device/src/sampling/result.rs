//! What a choice gives.

use thiserror::Error;

/// The chosen token, or why none could be chosen: a fault of one row of logits concerns its sequence alone.
pub type Sample = Result<ChosenToken, SampleError>;

/// A token and, where they were asked for, log-probabilities.
#[derive(Debug, Clone, PartialEq)]
pub struct ChosenToken {
    /// Its id.
    pub token: u32,
    /// Log-probabilities of the model's own distribution, before penalties, biases, masks and temperature: a chosen
    /// token that is unlikely in it was perhaps the only one a mask allowed.
    pub logprobs: Option<Logprobs>,
}

/// Log-probabilities in nats.
#[derive(Debug, Clone, PartialEq)]
pub struct Logprobs {
    /// Of the chosen token.
    pub chosen: f32,
    /// The most likely tokens, most likely first; equally likely ones by id.
    pub top: Vec<(u32, f32)>,
}

/// Why no token could be chosen.
#[derive(Debug, Clone, Copy, Error, PartialEq)]
pub enum SampleError {
    /// The model produced a number no distribution can hold.
    #[error("logit of token {token} is {got}: expected a finite number or -inf (damaged weights?)")]
    Logit {
        /// The token's id.
        token: usize,
        /// The logit.
        got: f32,
    },
    /// Every logit is -inf, or there are none.
    #[error("no token is possible: all {num_logits} logits are -inf")]
    NoToken {
        /// Length of the row of logits.
        num_logits: usize,
    },
    /// A mask leaves no token: it allows none, or the logits of those it allows are all -inf.
    #[error("no token is possible: the mask allows none of {num_logits} tokens whose logits are above -inf")]
    NoAllowedToken {
        /// Length of the row of logits.
        num_logits: usize,
    },
}
