//! How much a session can hold, and what that takes.

use dualgrain_device::{CacheFormat, Device, PAGE_TOKENS};

use super::error::SessionError;
use crate::{Model, ModelConfig, Position, angles_bytes, scratch_bytes};

/// How much a session can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// Sequences at once.
    pub num_sequences: usize,
    /// Tokens in one sequence.
    pub context_tokens: usize,
    /// Tokens in one step, over all sequences.
    pub step_tokens: usize,
    /// Tokens in one step while a sequence decodes, which waits for the prompts of others that share its steps; more than `step_tokens` are as many.
    pub stream_step_tokens: usize,
    /// Pages of the KV cache, [`PAGE_TOKENS`] tokens each; `None` has as many as all sequences at their full context take.
    pub num_pages: Option<usize>,
    /// Rows whose logits can be asked for at once.
    pub logit_rows: usize,
}

impl SessionLimits {
    /// Room for every sequence at its full context, and for the logits of one token of each.
    pub fn new(num_sequences: usize, context_tokens: usize, step_tokens: usize) -> Self {
        Self {
            num_sequences,
            context_tokens,
            step_tokens,
            stream_step_tokens: step_tokens,
            num_pages: None,
            logit_rows: num_sequences,
        }
    }

    /// Pages of a sequence at its full context.
    pub fn pages_per_sequence(&self) -> usize {
        self.context_tokens.div_ceil(PAGE_TOKENS)
    }

    /// Positions that a sequence can reach: those of its context, and no more than all pages hold.
    pub(super) fn num_positions(&self) -> usize {
        let pages = self
            .num_pages
            .map_or(usize::MAX, |pages| pages.saturating_mul(PAGE_TOKENS));
        self.context_tokens.min(pages)
    }

    /// Bytes that a session of a model with `config` takes beside the model, about: the cache, in the format `cache`, and the rest.
    /// `None` beyond what can be counted.
    pub fn required_bytes(&self, config: &ModelConfig, cache: &CacheFormat) -> Option<(u64, u64)> {
        let all_pages = (self.pages_per_sequence() as u64).checked_mul(self.num_sequences as u64)?;
        let pages = self.num_pages.map_or(all_pages, |pages| pages as u64);
        let token = cache.bytes_per_token(config.num_kv_heads, config.head_dim);
        let page = (PAGE_TOKENS * config.num_layers * token) as u64;
        let logits = (4 * config.vocab_size as u64).checked_mul(self.logit_rows as u64)?;
        let step = (scratch_bytes(config, 1) + 4 * config.hidden_size) as u64;
        let angles = angles_bytes(config, self.num_positions()) as u64;
        let buffers = logits.checked_add(step.checked_mul(self.step_tokens as u64)?)?;
        Some((pages.checked_mul(page)?, buffers.checked_add(angles)?))
    }

    /// Pages of the KV cache; `None` beyond what a page table can name.
    fn pages(&self) -> Option<u32> {
        let all = self.num_sequences.checked_mul(self.pages_per_sequence());
        u32::try_from(self.num_pages.or(all)?).ok()
    }
}

/// Checks the limits and returns the number of pages.
pub(super) fn check_limits<D: Device>(model: &Model<D>, limits: SessionLimits) -> Result<u32, SessionError> {
    let config = model.config();
    let max_context = match config.position {
        Position::Learned { .. } => config.max_positions,
        _ => u32::MAX as usize,
    };
    for (what, got, max) in [
        ("num_sequences", limits.num_sequences, u32::MAX as usize),
        ("context_tokens", limits.context_tokens, max_context),
        ("step_tokens", limits.step_tokens, u32::MAX as usize),
        ("stream_step_tokens", limits.stream_step_tokens, u32::MAX as usize),
        ("logit_rows", limits.logit_rows, u32::MAX as usize),
    ] {
        if !(1..=max).contains(&got) {
            let expected = format!("1..={max}");
            return Err(SessionError::Limit { what, got, expected });
        }
    }
    let per_sequence = limits.pages_per_sequence();
    let Some(num_pages) = limits.pages() else {
        return Err(SessionError::Limit {
            what: "num_sequences",
            got: limits.num_sequences,
            expected: format!("at most {} with this context", u32::MAX as usize / per_sequence),
        });
    };
    if (num_pages as usize) < per_sequence {
        return Err(SessionError::Limit {
            what: "num_pages",
            got: num_pages as usize,
            expected: format!("at least {per_sequence}, the pages of one sequence at its full context"),
        });
    }
    Ok(num_pages)
}
