//! Choosing tokens on a card, and the logarithm of the softmax: rows of logits stay there, and only what was chosen comes back.

mod last_tokens;
mod log_softmax;
mod sample;
mod sampler;
mod slot;

pub use last_tokens::{LastTokens, last_tokens_source};
pub use log_softmax::{LogSoftmax, log_softmax_source};
pub use sample::{Sampling, sample_source};
pub use sampler::{SampleRows, Sampler};
pub use slot::MOST_TOP_LOGPROBS;
