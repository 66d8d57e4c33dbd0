//! Attention over the paged cache.
//!
//! `tasks` cuts a call into tasks and runs them; `job` is what they share, `scratch` the buffers of a thread, `softmax` what
//! stands between the two products. The products are float (`float`) or integer (`int8`), as the cache stores floats or
//! codes.

mod float;
mod int8;
mod job;
mod scratch;
mod softmax;
pub(crate) mod tasks;
