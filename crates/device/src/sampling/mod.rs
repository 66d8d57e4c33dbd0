//! How the next token is chosen: parameters, random numbers, and the state that a host keeps of every sequence.
//!
//! [`crate::naive::sample`] is the rule itself. Weights of tokens are integers, so their sums have no order and every
//! device draws the same token.

mod host;
mod mask;
mod params;
mod random;
mod result;

pub use host::{HostSampler, SampleRow, SamplerShape, TokenCount, TokenCounts};
pub use mask::TokenMask;
pub use params::{ParameterError, SamplingParams};
pub use random::random_u64;
pub use result::{ChosenToken, Logprobs, Sample, SampleError};
