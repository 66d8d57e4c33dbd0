//! What a caller asks for, and what it gets.

use std::sync::Arc;

use dualgrain_device::sampling::SamplingParams;
use serde::Serialize;
use thiserror::Error;

use super::constraint::SharedConstraint;
use super::scheduler::FinishReason;
use crate::EngineError;
use crate::text::tokenizer::TokenizerError;

/// What to generate and when to end.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// End after this many tokens; `None` goes on to the end of the context.
    pub max_tokens: Option<usize>,
    /// End before any of these texts. They may begin and end inside tokens.
    pub stop: Vec<String>,
    /// Go on after the model's end tokens (for measurements).
    pub ignore_eos: bool,
    /// How a token is chosen.
    pub sampling: SamplingParams,
    /// What the answer must look like.
    pub constraint: Option<SharedConstraint>,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_tokens: None,
            stop: Vec::new(),
            ignore_eos: false,
            sampling: SamplingParams::GREEDY,
            constraint: None,
        }
    }
}

/// A prompt and what to do with it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    /// Tokens to run before the first new one, not empty.
    pub prompt: Vec<u32>,
    /// What to generate.
    pub options: GenerateOptions,
    /// Keep the cached keys and values when the generation ends, until their room is needed: the next turn of a
    /// conversation need not run them again.
    pub keep: bool,
}

/// What was generated for one request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Generation {
    /// The tokens, without an end token. A stop string's tokens are among them, its text is not in `text`.
    pub tokens: Vec<u32>,
    /// The text, as it was given out piece by piece.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// Where the time went. A step with prompt tokens counts as prefill, any other as decoding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Timings {
    /// Tokens of all prompts.
    pub prompt_tokens: usize,
    /// Time of the steps that ran them.
    pub prefill_time_s: f64,
    /// Prompt tokens by that time.
    pub prefill_tokens_per_s: f64,
    /// Tokens sampled in the other steps (the first token of a prompt belongs to its prefill).
    pub decode_tokens: usize,
    /// Time of the other steps.
    pub decode_time_s: f64,
    /// Those tokens by that time.
    pub decode_tokens_per_s: f64,
}

/// Results of a batch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BatchGeneration {
    /// One for each request, in order.
    pub generations: Vec<Generation>,
    /// Of all requests together.
    pub timings: Timings,
}

/// Why nothing could be generated.
#[derive(Debug, Clone, Error)]
pub enum GenerateError {
    /// A prompt without tokens.
    #[error("the prompt is empty: expected at least one token")]
    EmptyPrompt,
    /// A prompt that does not fit.
    #[error(
        "the prompt has {prompt_tokens} tokens, but the context holds {context_tokens}: shorten it or ask for a longer \
         context"
    )]
    PromptTooLong {
        /// Its tokens.
        prompt_tokens: usize,
        /// Tokens a sequence may have.
        context_tokens: usize,
    },
    /// An empty stop string would end every text at its start.
    #[error("stop string {index} is empty: expected at least one character")]
    EmptyStop {
        /// Index of the stop string.
        index: usize,
    },
    /// The model could not run, or no token could be chosen.
    #[error("{0}")]
    Engine(Arc<EngineError>),
    /// Tokens without text.
    #[error("{0}")]
    Tokenizer(Arc<TokenizerError>),
    /// One of several requests.
    #[error("request {request}: {error}")]
    InBatch {
        /// Index of the request.
        request: usize,
        /// Why.
        #[source]
        error: Box<GenerateError>,
    },
}

impl From<EngineError> for GenerateError {
    fn from(error: EngineError) -> Self {
        Self::Engine(Arc::new(error))
    }
}

impl From<TokenizerError> for GenerateError {
    fn from(error: TokenizerError) -> Self {
        Self::Tokenizer(Arc::new(error))
    }
}
