//! Sequences being run: page tables, the KV cache, and the buffers of a step.

use std::sync::Arc;

use dualgrain_device::sampling::{Sample, SamplerShape, SamplingParams};
use dualgrain_device::{CacheFormat, CacheShape, Device, Done, PAGE_TOKENS, StepLimits};

use super::error::SessionError;
use super::step_buffers::StepBuffers;
use super::tables::Tables;
use crate::{
    EngineError, Model, ModelConfig, Position, Scratch, StepState, angles_bytes, run_blocks, scratch_bytes,
};

/// How much a session can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// Sequences at once.
    pub num_sequences: usize,
    /// Tokens in one sequence.
    pub context_tokens: usize,
    /// Tokens in one step, over all sequences.
    pub step_tokens: usize,
    /// Pages of the KV cache, [`PAGE_TOKENS`] tokens each; `None` has as many as all sequences at their full context take.
    pub num_pages: Option<usize>,
    /// Rows whose logits can be asked for at once.
    pub logit_rows: usize,
}

/// Bytes a session holds besides the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionMemory {
    /// Keys and values.
    pub cache_bytes: usize,
    /// Buffers of a step.
    pub scratch_bytes: usize,
}

/// Sequences of one model, run in ragged steps.
pub struct Session<D: Device> {
    model: Arc<Model<D>>,
    limits: SessionLimits,
    cache: D::Cache,
    scratch: Scratch<D>,
    /// The residual stream of the last step [M, hidden].
    x: D::Matrix,
    logits: D::Matrix,
    sampler: D::Sampler,
    tables: Tables,
    step: StepBuffers<D>,
}

impl SessionLimits {
    /// Room for every sequence at its full context, and for the logits of one token of each.
    pub fn new(num_sequences: usize, context_tokens: usize, step_tokens: usize) -> Self {
        Self {
            num_sequences,
            context_tokens,
            step_tokens,
            num_pages: None,
            logit_rows: num_sequences,
        }
    }

    /// Pages of a sequence at its full context.
    pub fn pages_per_sequence(&self) -> usize {
        self.context_tokens.div_ceil(PAGE_TOKENS)
    }

    /// Positions that a sequence can reach: those of its context, and no more than all pages hold.
    fn num_positions(&self) -> usize {
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

impl<D: Device> Session<D> {
    /// Buffers and cache for `limits`.
    ///
    /// # Errors
    /// A limit of zero, a context longer than learned positions reach, fewer pages than one sequence needs, or sizes
    /// that the device cannot hold.
    pub fn new(model: Arc<Model<D>>, limits: SessionLimits) -> Result<Self, EngineError> {
        let num_pages = check_limits(&model, limits)?;
        let (device, config) = (model.device(), model.config());
        let shape = CacheShape {
            num_layers: config.num_layers,
            num_kv_heads: config.num_kv_heads,
            head_dim: config.head_dim,
            num_pages: num_pages as usize,
        };
        let sampler = SamplerShape {
            sequences: limits.num_sequences,
            vocab_size: config.vocab_size,
        };
        let step = StepLimits {
            tokens: limits.step_tokens,
            sequences: limits.num_sequences,
            pages_per_sequence: limits.pages_per_sequence(),
        };
        Ok(Self {
            cache: device.cache(shape, model.cache_format())?,
            scratch: Scratch::new(device, config, limits.step_tokens, limits.num_positions())?,
            x: device.matrix(limits.step_tokens, config.hidden_size)?,
            logits: device.matrix(limits.logit_rows, config.vocab_size)?,
            sampler: device.sampler(sampler)?,
            tables: Tables::new(limits.num_sequences, limits.pages_per_sequence(), num_pages),
            step: StepBuffers::new(device, step, limits.logit_rows)?,
            limits,
            model,
        })
    }

    /// Runs the next tokens of some sequences: `batch` holds (sequence, its next tokens). Rows of the step are the
    /// tokens in the order given.
    ///
    /// # Errors
    /// A token outside the vocabulary, a sequence beyond the context, more tokens than a step holds, a sequence
    /// named twice, too few free pages; nothing is run then. A device that failed: every sequence holds what it held before.
    pub fn run(&mut self, batch: &[(usize, &[u32])]) -> Result<(), EngineError> {
        self.check(batch)?;
        self.lay_out(batch);
        let done = self.forward();
        if done.is_err() {
            for &(sequence, tokens) in batch {
                self.tables
                    .truncate(sequence, self.tables.len(sequence) - tokens.len());
            }
            self.step.clear();
        }
        Ok(done?)
    }

    fn forward(&mut self) -> Done {
        let device = self.model.device();
        self.step.upload(device, self.tables.tables())?;
        let (tokens, positions) = (&self.step.tokens_on_device, &self.step.positions_on_device);
        let (x, scratch, cache) = (&mut self.x, &mut self.scratch, &mut self.cache);
        let model = &self.model;
        let step = &self.step.on_device;
        device.run_step(step, &mut || {
            scratch.prepare(device, positions)?;
            model
                .embedding()
                .apply(device, x, &mut scratch.y, tokens, positions)?;
            let state = StepState {
                x,
                scratch,
                cache,
                step,
            };
            run_blocks(device, model.blocks(), state, model.head().linear())
        })
    }

    /// Runs the next tokens of one sequence in as many steps as needed and returns the row of the last token in the
    /// last step (for [`Self::logits`]).
    ///
    /// # Errors
    /// As [`Self::run`]; no tokens. The whole prompt is checked before anything is run.
    pub fn prefill(&mut self, sequence: usize, tokens: &[u32]) -> Result<u32, EngineError> {
        self.check_sequence(sequence, tokens)?;
        let mut last = 0;
        for chunk in tokens.chunks(self.limits.step_tokens) {
            self.run(&[(sequence, chunk)])?;
            last = chunk.len() - 1;
        }
        Ok(last as u32)
    }

    /// Logits [rows.len(), vocab] of chosen rows of the last step.
    ///
    /// # Errors
    /// A row the last step did not have; a device that failed.
    pub fn logits(&mut self, rows: &[u32]) -> Result<&mut D::Matrix, EngineError> {
        let num_rows = self.step.tokens.len();
        if rows.len() > self.limits.logit_rows {
            return Err(SessionError::LogitRows {
                got: rows.len(),
                logit_rows: self.limits.logit_rows,
            }
            .into());
        }
        if let Some(&row) = rows.iter().find(|&&row| row as usize >= num_rows) {
            return Err(SessionError::Row { row, rows: num_rows }.into());
        }
        let device = self.model.device();
        let Scratch { h, y, h8, .. } = &mut self.scratch;
        device.upload_indices(&mut self.step.rows_on_device, rows)?;
        device.gather(y, &self.x, &self.step.rows_on_device)?;
        // The next token begins there.
        if let Some(first) = self.model.blocks().first() {
            device.will_read(&first.first_projection().linear);
        }
        self.model.head().apply(device, &mut self.logits, y, h, h8)?;
        Ok(&mut self.logits)
    }

    /// Says how the tokens of a sequence are chosen, which tokens its prompt has and which were generated before.
    ///
    /// # Errors
    /// A device that failed.
    pub fn begin_sampling(
        &mut self,
        sequence: usize,
        params: &SamplingParams,
        prompt: &[u32],
        generated: &[u32],
    ) -> Result<(), EngineError> {
        let device = self.model.device();
        Ok(device.begin_sampling(&mut self.sampler, sequence, params, prompt, generated)?)
    }

    /// Chooses the next token of some sequences from `rows` of the last step, on the device: (row, sequence).
    ///
    /// # Errors
    /// A row the last step did not have; a device that failed. A row that is no distribution is an error of its sample alone.
    pub fn sample(&mut self, rows: &[(u32, usize)]) -> Result<Vec<Sample>, EngineError> {
        let mut sampled = std::mem::take(&mut self.step.sampled);
        sampled.clear();
        sampled.extend(rows.iter().map(|&(row, _)| row));
        let done = self.logits(&sampled).map(drop);
        self.step.sampled = sampled;
        done?;
        let device = self.model.device();
        self.step.upload_sample_rows(device, rows)?;
        device.sample(&mut self.sampler, &self.logits, &self.step.sample_rows_on_device)?;
        Ok(device.read_samples(&self.sampler)?)
    }

    /// Forgets a sequence; pages that no other sequence holds are free again.
    pub fn reset(&mut self, sequence: usize) {
        self.tables.truncate(sequence, 0);
    }

    /// Forgets the tokens of a sequence from `len` on, e.g. to try another continuation of the same context. Returns how
    /// many tokens are left: fewer than `len` where another sequence holds the last page too.
    pub fn truncate(&mut self, sequence: usize, len: usize) -> usize {
        self.tables.truncate(sequence, len)
    }

    /// Lets the empty sequence `to` begin with the first `len` tokens of `from`, without running or copying them. Full pages
    /// are shared; returns how many tokens they hold.
    ///
    /// # Errors
    /// A sequence that does not exist, or `to` holds tokens.
    pub fn share_prefix(&mut self, from: usize, to: usize, len: usize) -> Result<usize, SessionError> {
        for sequence in [from, to] {
            self.check_exists(sequence)?;
        }
        if from == to || !self.is_empty(to) {
            let problem = "holds tokens already";
            return Err(SessionError::Sequence {
                sequence: to,
                problem,
            });
        }
        Ok(self.tables.share(from, to, len))
    }

    /// Tokens in a sequence; 0 for one that does not exist.
    pub fn len(&self, sequence: usize) -> usize {
        self.tables.len(sequence)
    }

    /// Whether a sequence has no tokens.
    pub fn is_empty(&self, sequence: usize) -> bool {
        self.len(sequence) == 0
    }

    /// Pages of a sequence, in order.
    pub fn pages(&self, sequence: usize) -> &[u32] {
        self.tables.tables().get(sequence).map_or(&[], Vec::as_slice)
    }

    /// How many sequences hold `page`.
    pub fn num_holders(&self, page: u32) -> u32 {
        self.tables.pool().num_holders(page)
    }

    /// Pages that no sequence holds.
    pub fn num_free_pages(&self) -> usize {
        self.tables.pool().num_free()
    }

    /// Pages of the KV cache.
    pub fn num_pages(&self) -> usize {
        self.tables.pool().num_pages()
    }

    /// Pages that sequence `sequence` must still take to hold `len` tokens.
    pub fn missing_pages(&self, sequence: usize, len: usize) -> usize {
        self.tables.missing(sequence, len)
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model<D>> {
        &self.model
    }

    /// The limits.
    pub fn limits(&self) -> SessionLimits {
        self.limits
    }

    /// Bytes held.
    pub fn memory(&self) -> SessionMemory {
        let SessionLimits {
            step_tokens,
            logit_rows,
            ..
        } = self.limits;
        let config = self.model.config();
        let own = step_tokens * config.hidden_size + logit_rows * config.vocab_size;
        SessionMemory {
            cache_bytes: self.model.device().cache_bytes(&self.cache),
            scratch_bytes: scratch_bytes(config, step_tokens)
                + angles_bytes(config, self.limits.num_positions())
                + 4 * own,
        }
    }

    fn check(&self, batch: &[(usize, &[u32])]) -> Result<(), SessionError> {
        let mut needed = 0;
        for (i, &(sequence, tokens)) in batch.iter().enumerate() {
            self.check_sequence(sequence, tokens)?;
            if batch[..i].iter().any(|&(other, _)| other == sequence) {
                return Err(SessionError::Sequence {
                    sequence,
                    problem: "is twice in one step",
                });
            }
            needed += self.missing_pages(sequence, self.len(sequence) + tokens.len());
        }
        let SessionLimits { step_tokens, .. } = self.limits;
        match batch.iter().map(|(_, tokens)| tokens.len()).sum() {
            0 => Err(SessionError::Empty),
            got if got > step_tokens => Err(SessionError::StepTokens { got, step_tokens }),
            _ if needed > self.num_free_pages() => Err(SessionError::Pages {
                needed,
                free: self.num_free_pages(),
            }),
            _ => Ok(()),
        }
    }

    fn check_exists(&self, sequence: usize) -> Result<(), SessionError> {
        match sequence < self.limits.num_sequences {
            true => Ok(()),
            false => {
                let problem = "is beyond the session's num_sequences";
                Err(SessionError::Sequence { sequence, problem })
            }
        }
    }

    fn check_sequence(&self, sequence: usize, tokens: &[u32]) -> Result<(), SessionError> {
        self.check_exists(sequence)?;
        if tokens.is_empty() {
            return Err(SessionError::Empty);
        }
        check_tokens(tokens, self.model.config().vocab_size)?;
        let (got, context_tokens) = (self.len(sequence) + tokens.len(), self.limits.context_tokens);
        if got > context_tokens {
            return Err(SessionError::Context {
                sequence,
                got,
                context_tokens,
            });
        }
        Ok(())
    }

    /// Positions, sequences and pages of a checked batch.
    fn lay_out(&mut self, batch: &[(usize, &[u32])]) {
        self.step.clear();
        for &(sequence, tokens) in batch {
            let first = self.len(sequence);
            let last = first + tokens.len();
            self.tables.extend(sequence, last);
            self.step.push(sequence, first, tokens);
        }
    }
}

/// Refuses token ids outside the vocabulary.
pub(super) fn check_tokens(tokens: &[u32], vocab_size: usize) -> Result<(), SessionError> {
    match tokens.iter().find(|&&token| token as usize >= vocab_size) {
        None => Ok(()),
        Some(&got) => Err(SessionError::Token { got, vocab_size }),
    }
}

/// Checks the limits and returns the number of pages.
fn check_limits<D: Device>(model: &Model<D>, limits: SessionLimits) -> Result<u32, SessionError> {
    let config = model.config();
    let max_context = match config.position {
        Position::Learned { .. } => config.max_positions,
        _ => u32::MAX as usize,
    };
    for (what, got, max) in [
        ("num_sequences", limits.num_sequences, u32::MAX as usize),
        ("context_tokens", limits.context_tokens, max_context),
        ("step_tokens", limits.step_tokens, u32::MAX as usize),
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
