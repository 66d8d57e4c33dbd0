//! The sampling state of every sequence, on the card.

use std::collections::VecDeque;
use std::sync::Arc;

use dualgrain_device::sampling::{Sample, SampleRow, SamplerShape, SamplingParams, TokenMask};

use super::slot::{
    FLAGS_WORD, MOST_TOP_LOGPROBS, RESULT_WORDS, SLOT_WORDS, num_top, sample_of, slot_words, with_mask,
};
use crate::driver::{Buffer, Gpu, ReadBack};
use crate::error::CudaError;

/// Words of a `SampleRow` in cu/sampling/sample.cu.
const ROW_WORDS: usize = 4;
/// Words of a most likely token and its log-probability.
const TOP_WORDS: usize = 2;
/// Words of a row's most likely tokens.
const TOP_ROW_WORDS: usize = TOP_WORDS * MOST_TOP_LOGPROBS;
/// The prompt's bit in the count of a token; the others count how often it was generated.
const IN_PROMPT: u32 = 1 << 31;
/// Launches whose samples are kept until they are read.
const MOST_UNREAD: usize = 2;
/// Words that the kernel may read beyond the masks' end: `forbid` in cu/sampling/sample_row.cuh.
const READ_BEYOND: usize = 128;
/// Longest row: sums of this many weights fit 64 bits.
const MOST_LOGITS: usize = 1 << 23;

/// Parameters, token counts, biases, masks and the last token by slot, and the samples that were not read. Counts and biases take eight bytes for every sequence and
/// token of the vocabulary: nothing is allocated after the beginning.
pub struct Sampler {
    shape: SamplerShape,
    pub(super) slots: Buffer,
    /// `[sequences, vocab_size]`, a word each.
    pub(super) counts: Arc<Buffer>,
    /// f32 `[sequences, vocab_size]`.
    pub(super) biases: Arc<Buffer>,
    /// `[sequences, ceil(vocab_size / 32)]` and a little more, a bit by token; read for slots whose flags say so.
    pub(super) masks: Buffer,
    pub(super) results: Buffer,
    pub(super) tops: Buffer,
    /// `[sequences]` u32
    pub(super) last_tokens: Buffer,
    /// The flags of each slot, as the card has them.
    flags: Vec<u32>,
    /// Whether the most likely tokens of a slot are asked for.
    reports_top: Vec<bool>,
    /// Samples on their way to the host, the oldest first.
    unread: VecDeque<Unread>,
    /// Where further samples can go.
    free: Vec<ReadBack>,
    row_words: Vec<u32>,
    row_floats: Vec<f32>,
}

/// Samples of a launch.
struct Unread {
    words: ReadBack,
    num_rows: usize,
}

impl Sampler {
    /// Slots that choose greedily until they are begun.
    ///
    /// # Errors
    /// Not enough memory, or rows longer than 2^23.
    pub fn new(gpu: &Gpu, shape: SamplerShape) -> Result<Self, CudaError> {
        let SamplerShape {
            sequences,
            vocab_size,
        } = shape;
        if vocab_size > MOST_LOGITS {
            return Err(CudaError::TooLarge {
                what: "vocabulary",
                got: vocab_size,
            });
        }
        let slot = slot_words(&SamplingParams::GREEDY, vocab_size)?;
        let by_token = || gpu.uninitialized(4 * sequences * vocab_size).map(Arc::new);
        Ok(Self {
            shape,
            slots: gpu.upload_repeated(&slot, SLOT_WORDS * sequences)?,
            counts: by_token()?,
            biases: by_token()?,
            masks: gpu.uninitialized(4 * (sequences * TokenMask::num_words(vocab_size) + READ_BEYOND))?,
            results: gpu.filled(4 * RESULT_WORDS * sequences, 0)?,
            tops: gpu.filled(4 * TOP_WORDS * MOST_TOP_LOGPROBS * sequences, 0)?,
            last_tokens: gpu.filled(4 * sequences, 0)?,
            flags: vec![slot[FLAGS_WORD]; sequences],
            reports_top: vec![false; sequences],
            unread: VecDeque::with_capacity(MOST_UNREAD),
            free: (0..MOST_UNREAD)
                .map(|_| ReadBack::new(gpu, (RESULT_WORDS + TOP_ROW_WORDS) * sequences))
                .collect::<Result<_, _>>()?,
            row_words: vec![0; vocab_size],
            row_floats: vec![0.0; vocab_size],
        })
    }

    /// What it holds.
    pub fn shape(&self) -> SamplerShape {
        self.shape
    }

    /// Bytes of a card that a sampler of this shape takes, without results.
    pub(crate) fn size_bytes(shape: SamplerShape) -> usize {
        let words = 2 * shape.vocab_size + TokenMask::num_words(shape.vocab_size);
        shape.sequences.saturating_mul(4 * words)
    }

    /// Says which tokens the sequence in `slot` may take from the next launch on; `None` allows all.
    ///
    /// # Errors
    /// A mask of another vocabulary, a slot beyond the last one, or a copy that failed.
    pub fn mask(&mut self, slot: usize, mask: Option<&TokenMask>) -> Result<(), CudaError> {
        self.mask_by(slot, mask, |buffer, offset_bytes, words| {
            buffer.write(offset_bytes, words)
        })
    }

    /// As [`Self::mask`], with copies of the caller's. The flag is copied where it changes alone, so a sequence that is masked step after
    /// step costs one copy of its bits.
    pub(crate) fn mask_by(
        &mut self,
        slot: usize,
        mask: Option<&TokenMask>,
        copy: impl Fn(&Buffer, usize, &[u32]) -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        if let Some(mask) = mask {
            let (expected, got) = (self.shape.vocab_size, mask.vocab_size());
            if got != expected {
                let what = "mask of a vocabulary";
                return Err(CudaError::Length { what, expected, got });
            }
            copy(&self.masks, size_of_val(mask.words()) * slot, mask.words())?;
        }
        let flags = with_mask(self.flags[slot], mask.is_some());
        if flags != self.flags[slot] {
            copy(&self.slots, 4 * (SLOT_WORDS * slot + FLAGS_WORD), &[flags])?;
            self.flags[slot] = flags;
        }
        Ok(())
    }

    /// Begins a sequence in `slot`, without a mask: its parameters and the tokens it has already. Waits for the card.
    ///
    /// # Errors
    /// A slot beyond the last one, more than [`MOST_TOP_LOGPROBS`] log-probabilities, or a copy that failed.
    pub fn begin(
        &mut self,
        slot: usize,
        params: &SamplingParams,
        prompt: &[u32],
        generated: &[u32],
    ) -> Result<(), CudaError> {
        let words = slot_words(params, self.shape.vocab_size)?;
        self.slots.write(4 * SLOT_WORDS * slot, &words)?;
        self.flags[slot] = words[FLAGS_WORD];
        self.reports_top[slot] = params.num_logprobs.is_some_and(|count| count > 0);
        if params.counts_tokens() {
            self.count(prompt, generated);
            self.counts
                .write(4 * self.shape.vocab_size * slot, &self.row_words)?;
        }
        if !params.logit_bias.is_empty() {
            self.spread(&params.logit_bias);
            self.biases
                .write(4 * self.shape.vocab_size * slot, &self.row_floats)?;
        }
        Ok(())
    }

    /// Counts the tokens of a sequence; those outside the vocabulary have no logit to change.
    fn count(&mut self, prompt: &[u32], generated: &[u32]) {
        self.row_words.fill(0);
        for &token in prompt {
            if let Some(count) = self.row_words.get_mut(token as usize) {
                *count |= IN_PROMPT;
            }
        }
        for &token in generated {
            if let Some(count) = self.row_words.get_mut(token as usize) {
                *count += u32::from(*count & !IN_PROMPT < !IN_PROMPT);
            }
        }
    }

    fn spread(&mut self, biases: &[(u32, f32)]) {
        self.row_floats.fill(0.0);
        for &(token, bias) in biases {
            if let Some(place) = self.row_floats.get_mut(token as usize) {
                *place += bias;
            }
        }
    }

    /// Puts copies of the samples of a launch for `rows` on the stream: 32 bytes a row, and the most likely tokens up to the last row
    /// that asked for them. Samples that nobody read give way.
    pub(super) fn read_back(&mut self, rows: &SampleRows) -> Result<(), CudaError> {
        let reports = |&slot: &u32| self.reports_top[slot as usize];
        let last_top = rows.slots().collect::<Vec<_>>().iter().rposition(reports);
        if self.free.is_empty() {
            let oldest = self.unread.pop_front().map(|unread| unread.words);
            self.free.extend(oldest);
        }
        let Some(mut words) = self.free.pop() else {
            return Ok(());
        };
        let num_rows = rows.len();
        let tops = last_top.map_or(0, |last| TOP_ROW_WORDS * (last + 1));
        let copied = words.copy(&[(&self.results, RESULT_WORDS * num_rows), (&self.tops, tops)]);
        match copied {
            Ok(()) => self.unread.push_back(Unread { words, num_rows }),
            Err(error) => {
                self.free.push(words);
                return Err(error);
            }
        }
        Ok(())
    }

    /// The samples of the oldest launch that were not read, in the order of its rows; none where all were. Waits for them.
    ///
    /// # Errors
    /// A copy, or an earlier kernel, that failed.
    pub fn read(&mut self) -> Result<Vec<Sample>, CudaError> {
        let Some(Unread { mut words, num_rows }) = self.unread.pop_front() else {
            return Ok(Vec::new());
        };
        let samples = words.wait().map(|words| {
            let (results, tops) = words.split_at(RESULT_WORDS * num_rows);
            let sample = |(index, row): (usize, &[u32])| {
                let count = TOP_WORDS * num_top(row);
                let from = if count > 0 { TOP_ROW_WORDS * index } else { 0 };
                sample_of(row, &tops[from..from + count], self.shape.vocab_size)
            };
            let rows = results.chunks_exact(RESULT_WORDS);
            rows.enumerate().map(sample).collect()
        });
        self.free.push(words);
        samples
    }

    /// Forgets the samples that were not read.
    pub fn forget(&mut self) {
        let unread = self.unread.drain(..).map(|unread| unread.words);
        self.free.extend(unread);
    }
}

/// Sequence and position of each row of logits that is sampled.
pub struct SampleRows {
    pub(super) buffer: Buffer,
    words: Vec<u32>,
    len: usize,
}

impl SampleRows {
    /// Room for `capacity` rows.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn new(gpu: &Gpu, capacity: usize) -> Result<Self, CudaError> {
        Ok(Self {
            buffer: gpu.filled(4 * ROW_WORDS * capacity, 0)?,
            words: Vec::with_capacity(ROW_WORDS * capacity),
            len: 0,
        })
    }

    /// Replaces the rows; each slot at most once.
    ///
    /// # Errors
    /// More rows than there is room for (nothing changes then), or a copy that failed.
    pub fn upload(&mut self, values: &[SampleRow]) -> Result<(), CudaError> {
        self.upload_by(values, |buffer, words| buffer.write(0, words))
    }

    /// As [`Self::upload`], with a copy of the caller's.
    pub(crate) fn upload_by(
        &mut self,
        values: &[SampleRow],
        copy: impl FnOnce(&Buffer, &[u32]) -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        let expected = self.buffer.len_bytes();
        if 4 * ROW_WORDS * values.len() > expected {
            return Err(CudaError::Length {
                what: "rows to sample",
                expected,
                got: 4 * ROW_WORDS * values.len(),
            });
        }
        self.words.clear();
        for row in values {
            let position = row.position as u64;
            let words = [row.slot as u32, 0, position as u32, (position >> 32) as u32];
            self.words.extend(words);
        }
        self.len = values.len();
        copy(&self.buffer, &self.words)
    }

    /// The slot of each row.
    fn slots(&self) -> impl Iterator<Item = u32> {
        self.words.iter().step_by(ROW_WORDS).copied()
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}
