//! Sequences being run: page tables, the KV cache, and the buffers of a step.

use std::sync::Arc;

use dualgrain_device::sampling::{Sample, SamplerShape, SamplingParams, TokenMask};
use dualgrain_device::{CacheShape, Device, Done, StepLimits};

use super::error::SessionError;
use super::limits::{SessionLimits, check_limits};
use super::step_buffers::StepBuffers;
use super::tables::Tables;
use crate::{EngineError, Model, Scratch, StepState, angles_bytes, run_blocks, scratch_bytes};

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
        let uploaded = self.step.upload(self.model.device(), self.tables.tables());
        let done = uploaded.and_then(|()| self.forward());
        self.undo_failed(batch, done)
    }

    /// Runs one more token of each of `sequences`: the one that was chosen for it last, which may not have been read yet.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_chosen(&mut self, sequences: &[usize]) -> Result<(), EngineError> {
        // What stands on the host for tokens that only the device knows.
        let batch: Vec<(usize, &[u32])> = sequences.iter().map(|&sequence| (sequence, &[0][..])).collect();
        self.check(&batch)?;
        self.lay_out(&batch);
        let done = self.take_chosen(sequences).and_then(|()| self.forward());
        self.undo_failed(&batch, done)
    }

    /// Uploads the step, with the tokens that were chosen last.
    fn take_chosen(&mut self, sequences: &[usize]) -> Done {
        let device = self.model.device();
        let rows: Vec<(u32, usize)> = (0..).zip(sequences.iter().copied()).collect();
        self.step.upload_sample_rows(device, &rows)?;
        self.step.upload_positions(device, self.tables.tables())?;
        device.last_tokens(
            &mut self.step.tokens_on_device,
            &self.sampler,
            &self.step.sample_rows_on_device,
        )
    }

    /// After a device failed every sequence holds what it held before.
    fn undo_failed(&mut self, batch: &[(usize, &[u32])], done: Done) -> Result<(), EngineError> {
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
        self.step.upload_rows(device, rows)?;
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

    /// Says which tokens a sequence may take next; `None` allows all again.
    ///
    /// # Errors
    /// A device that failed.
    pub fn mask_sampling(&mut self, sequence: usize, mask: Option<&TokenMask>) -> Result<(), EngineError> {
        let device = self.model.device();
        Ok(device.mask_sampling(&mut self.sampler, sequence, mask)?)
    }

    /// Chooses the next token of some sequences from `rows` of the last step, on the device: (row, sequence).
    ///
    /// # Errors
    /// A row the last step did not have; a device that failed. A row that is no distribution is an error of its sample alone.
    pub fn sample(&mut self, rows: &[(u32, usize)]) -> Result<Vec<Sample>, EngineError> {
        self.begin_sample(rows)?;
        self.read_samples()
    }

    /// As [`Self::sample`], but the tokens are read later: those of two calls are kept.
    ///
    /// # Errors
    /// As [`Self::sample`].
    pub fn begin_sample(&mut self, rows: &[(u32, usize)]) -> Result<(), EngineError> {
        let mut sampled = std::mem::take(&mut self.step.sampled);
        sampled.clear();
        sampled.extend(rows.iter().map(|&(row, _)| row));
        let done = self.logits(&sampled).map(drop);
        self.step.sampled = sampled;
        done?;
        let device = self.model.device();
        self.step.upload_sample_rows(device, rows)?;
        device.sample(&mut self.sampler, &self.logits, &self.step.sample_rows_on_device)?;
        Ok(())
    }

    /// The tokens that the oldest [`Self::begin_sample`] chose that was not read, in the order of its rows.
    ///
    /// # Errors
    /// A device that failed. A row that is no distribution is an error of its sample alone.
    pub fn read_samples(&mut self) -> Result<Vec<Sample>, EngineError> {
        Ok(self.model.device().read_samples(&mut self.sampler)?)
    }

    /// Forgets what was chosen and not read.
    pub fn forget_samples(&mut self) {
        self.model.device().forget_samples(&mut self.sampler);
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

    /// Notes from now on which pages are forgotten, for [`Self::take_forgotten`].
    pub(super) fn watch_pages(&mut self) {
        self.tables.watch();
    }

    /// Pages of which no sequence holds all tokens any more that lay there, since the last call.
    pub(super) fn take_forgotten(&mut self) -> Vec<u32> {
        self.tables.take_forgotten()
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
