//! Sequences being run: page tables, the KV cache, and the buffers of a step.

use std::sync::Arc;

use dualgrain_device::{CacheShape, Device, PAGE_TOKENS, Step};

use super::error::SessionError;
use crate::{EngineError, Model, Position, Role, Scratch};

/// How much a session can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// Sequences at once.
    pub num_sequences: usize,
    /// Tokens in one sequence.
    pub context_tokens: usize,
    /// Tokens in one step, over all sequences.
    pub step_tokens: usize,
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
    pages: Pages,
    tokens: Vec<u32>,
    positions: Vec<u32>,
    sequences: Vec<u32>,
}

/// Which pages belong to which sequence.
#[derive(Debug)]
struct Pages {
    tables: Vec<Vec<u32>>,
    lens: Vec<usize>,
    free: Vec<u32>,
}

impl<D: Device> Session<D> {
    /// Buffers and cache for `limits`.
    ///
    /// # Errors
    /// A limit of zero, a context longer than learned positions reach, or sizes the device cannot hold.
    pub fn new(model: Arc<Model<D>>, limits: SessionLimits) -> Result<Self, EngineError> {
        check_limits(&model, limits)?;
        let (device, config) = (model.device(), model.config());
        let pages = Pages::new(limits)?;
        let shape = CacheShape {
            num_layers: config.num_layers,
            num_kv_heads: config.num_kv_heads,
            head_dim: config.head_dim,
            num_pages: pages.free.len(),
        };
        Ok(Self {
            cache: device.cache(shape, model.cache_format())?,
            scratch: Scratch::new(device, config, limits.step_tokens),
            x: device.matrix(limits.step_tokens, config.hidden_size),
            logits: device.matrix(limits.num_sequences, config.vocab_size),
            pages,
            tokens: Vec::with_capacity(limits.step_tokens),
            positions: Vec::with_capacity(limits.step_tokens),
            sequences: Vec::with_capacity(limits.step_tokens),
            limits,
            model,
        })
    }

    /// Runs the next tokens of some sequences: `batch` holds (sequence, its next tokens). Rows of the step are the
    /// tokens in the order given.
    ///
    /// # Errors
    /// A token outside the vocabulary, a sequence beyond the context, more tokens than a step holds, a sequence
    /// named twice; nothing is run then.
    pub fn run(&mut self, batch: &[(usize, &[u32])]) -> Result<(), EngineError> {
        self.check(batch)?;
        self.lay_out(batch);
        let device = self.model.device();
        let step = Step {
            positions: &self.positions,
            sequences: &self.sequences,
            page_tables: &self.pages.tables,
        };
        self.scratch.prepare(device, &self.positions);
        let (embedding, y) = (self.model.embedding(), &mut self.scratch.y);
        embedding.apply(device, &mut self.x, y, &self.tokens, &self.positions);
        let blocks = self.model.blocks();
        for (layer, block) in blocks.iter().enumerate() {
            let (x, scratch, cache) = (&mut self.x, &mut self.scratch, &mut self.cache);
            let next = blocks.get(layer + 1).map_or(self.model.head().linear(), |next| {
                &next.projection(Role::Qkv).linear
            });
            block.forward(device, x, scratch, cache, layer, &step, next);
        }
        Ok(())
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
    /// A row the last step did not have.
    pub fn logits(&mut self, rows: &[u32]) -> Result<&mut D::Matrix, EngineError> {
        let num_rows = self.tokens.len();
        if let Some(&row) = rows.iter().find(|&&row| row as usize >= num_rows) {
            return Err(SessionError::Row { row, rows: num_rows }.into());
        }
        let device = self.model.device();
        let Scratch { h, y, h8, .. } = &mut self.scratch;
        device.gather(y, &self.x, rows);
        // The next token begins there.
        if let Some(first) = self.model.blocks().first() {
            device.will_read(&first.projection(Role::Qkv).linear);
        }
        self.model.head().apply(device, &mut self.logits, y, h, h8);
        Ok(&mut self.logits)
    }

    /// Forgets a sequence; its pages are free again.
    pub fn reset(&mut self, sequence: usize) {
        self.truncate(sequence, 0);
    }

    /// Forgets the tokens of a sequence from `len` on, e.g. to try another continuation of the same context.
    pub fn truncate(&mut self, sequence: usize, len: usize) {
        self.pages.truncate(sequence, len);
    }

    /// Tokens in a sequence; 0 for one that does not exist.
    pub fn len(&self, sequence: usize) -> usize {
        self.pages.lens.get(sequence).copied().unwrap_or(0)
    }

    /// Whether a sequence has no tokens.
    pub fn is_empty(&self, sequence: usize) -> bool {
        self.len(sequence) == 0
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model<D>> {
        &self.model
    }

    /// The limits.
    pub fn limits(&self) -> SessionLimits {
        self.limits
    }

    /// Bytes that a session of `limits` would hold, to be asked before it is made; `None` beyond 64 bits.
    pub fn required_bytes(model: &Model<D>, limits: SessionLimits) -> Option<u64> {
        let config = model.config();
        let pages = limits.context_tokens.div_ceil(PAGE_TOKENS) as u64;
        let token = model
            .cache_format()
            .bytes_per_token(config.num_kv_heads, config.head_dim);
        let page = (PAGE_TOKENS * config.num_layers * token) as u64;
        let sequence = pages
            .checked_mul(page)?
            .checked_add(4 * config.vocab_size as u64)?;
        let step = (Scratch::<D>::size_bytes(config, 1) + 4 * config.hidden_size) as u64;
        sequence
            .checked_mul(limits.num_sequences as u64)?
            .checked_add(step.checked_mul(limits.step_tokens as u64)?)
    }

    /// Bytes held.
    pub fn memory(&self) -> SessionMemory {
        let (
            config,
            SessionLimits {
                num_sequences,
                step_tokens,
                ..
            },
        ) = (self.model.config(), self.limits);
        let own = step_tokens * config.hidden_size + num_sequences * config.vocab_size;
        SessionMemory {
            cache_bytes: self.model.device().cache_bytes(&self.cache),
            scratch_bytes: Scratch::<D>::size_bytes(config, step_tokens) + 4 * own,
        }
    }

    fn check(&self, batch: &[(usize, &[u32])]) -> Result<(), SessionError> {
        for (i, &(sequence, tokens)) in batch.iter().enumerate() {
            self.check_sequence(sequence, tokens)?;
            if batch[..i].iter().any(|&(other, _)| other == sequence) {
                return Err(SessionError::Sequence {
                    sequence,
                    problem: "is twice in one step",
                });
            }
        }
        let SessionLimits { step_tokens, .. } = self.limits;
        match batch.iter().map(|(_, tokens)| tokens.len()).sum() {
            0 => Err(SessionError::Empty),
            got if got > step_tokens => Err(SessionError::StepTokens { got, step_tokens }),
            _ => Ok(()),
        }
    }

    fn check_sequence(&self, sequence: usize, tokens: &[u32]) -> Result<(), SessionError> {
        let vocab_size = self.model.config().vocab_size;
        if sequence >= self.limits.num_sequences {
            let problem = "is beyond the session's num_sequences";
            return Err(SessionError::Sequence { sequence, problem });
        }
        if tokens.is_empty() {
            return Err(SessionError::Empty);
        }
        if let Some(&got) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
            return Err(SessionError::Token { got, vocab_size });
        }
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
        self.tokens.clear();
        self.positions.clear();
        self.sequences.clear();
        for &(sequence, tokens) in batch {
            let first = self.len(sequence);
            let last = first + tokens.len();
            self.pages.extend(sequence, last);
            self.tokens.extend_from_slice(tokens);
            self.positions
                .extend((first..last).map(|position| position as u32));
            self.sequences.extend(tokens.iter().map(|_| sequence as u32));
        }
    }
}

impl Pages {
    /// Pages for every sequence at its full context, so that no step can run out of them.
    fn new(limits: SessionLimits) -> Result<Self, SessionError> {
        let per_sequence = limits.context_tokens.div_ceil(PAGE_TOKENS);
        let pages = limits.num_sequences.checked_mul(per_sequence);
        let Some(num_pages) = pages.and_then(|pages| u32::try_from(pages).ok()) else {
            return Err(SessionError::Limit {
                what: "num_sequences",
                got: limits.num_sequences,
                expected: format!("at most {} with this context", u32::MAX as usize / per_sequence),
            });
        };
        Ok(Self {
            // Not `vec![...]`: clones of a vector have no room.
            tables: (0..limits.num_sequences)
                .map(|_| Vec::with_capacity(per_sequence))
                .collect(),
            lens: vec![0; limits.num_sequences],
            free: (0..num_pages).rev().collect(),
        })
    }

    fn extend(&mut self, sequence: usize, len: usize) {
        let table = &mut self.tables[sequence];
        let missing = len.div_ceil(PAGE_TOKENS) - table.len();
        table.extend(self.free.drain(self.free.len() - missing..).rev());
        self.lens[sequence] = len;
    }

    fn truncate(&mut self, sequence: usize, len: usize) {
        let (Some(table), Some(old)) = (self.tables.get_mut(sequence), self.lens.get_mut(sequence)) else {
            return;
        };
        *old = len.min(*old);
        let kept = old.div_ceil(PAGE_TOKENS);
        self.free.extend(table.drain(kept..).rev());
    }
}

fn check_limits<D: Device>(model: &Model<D>, limits: SessionLimits) -> Result<(), SessionError> {
    let config = model.config();
    let max_context = match config.position {
        Position::Learned { .. } => config.max_positions,
        _ => u32::MAX as usize,
    };
    for (what, got, max) in [
        ("num_sequences", limits.num_sequences, u32::MAX as usize),
        ("context_tokens", limits.context_tokens, max_context),
        ("step_tokens", limits.step_tokens, u32::MAX as usize),
    ] {
        if !(1..=max).contains(&got) {
            let expected = format!("1..={max}");
            return Err(SessionError::Limit { what, got, expected });
        }
    }
    Ok(())
}
