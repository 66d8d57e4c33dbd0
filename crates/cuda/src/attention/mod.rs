//! The paged KV cache on a card, and attention over it with the bits of the specification.
//!
//! A [`PagedCache`] holds keys and values of all layers; [`StepTokens`] says which positions of which sequences a step's rows
//! are; [`CacheWrite`] puts keys and values into the cache, and [`Attention`] reads them. Tokens of which a step has few of a
//! sequence have their spans of 512 positions attended apart: over an INT8 cache, from Hopper on, by thread blocks that stay and have
//! pages brought to them (`cu/attention/ring/attention_ring.cu`; in steps that decode it rotates and writes as well, and for few tokens makes the
//! codes that the next product takes), else by blocks that read for themselves (`cu/attention/attention_spans.cu`). Many consecutive tokens of one sequence go in tiles over an INT8 cache
//! (`cu/attention/attention_prompt.cu`; on Hopper, with heads of 128, `cu/attention/groups/attention_prompt_sm90.cu`), else one by one.

mod arguments;
mod attend;
mod cache_write;
mod joined;
mod paged_cache;
mod ring;
mod sources;
mod step_tokens;
mod workspace;

pub use attend::Attention;
pub(crate) use attend::prompt_kernel;
pub use cache_write::{CacheWrite, RotatedQueries};
pub use joined::Attended;
pub use paged_cache::PagedCache;
pub use ring::{Ring, RingTask};
pub use sources::{AttentionKernel, ScoreRule, attention_source};
pub use step_tokens::StepTokens;
pub use workspace::AttentionWorkspace;
