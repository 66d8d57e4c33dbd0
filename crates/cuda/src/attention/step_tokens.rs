//! The tokens of a step in a card's memory.

use dualgrain_device::naive::SPAN_TOKENS;
use dualgrain_device::{PAGE_TOKENS, StepLayout, StepLimits};

use crate::driver::{Buffer, Gpu};
use crate::error::CudaError;

/// Adjacent tokens of one sequence that are attended together rather than each in spans of its own.
const LEAST_RUN: usize = 32;
/// Spans that wait for each other's results at most: what is beyond is attended as runs are.
const MOST_SPANS: usize = 8_192;
/// Words before the positions.
const HEAD_WORDS: usize = 16;

/// Positions, sequences and page tables of a step on a card, buffers of fixed capacity that are filled once a step.
///
/// In 32-bit words: 16 of counts and offsets (`StepHead` in cu/attention/attention.cuh), `[tokens]` positions, `[tokens]` offsets
/// of their page tables, split tokens and runs of four words each, page tables one behind the other.
pub struct StepTokens {
    limits: StepLimits,
    buffer: Buffer,
    words: Vec<u32>,
    num_tokens: usize,
    num_spans: usize,
    /// Where each sequence's page table begins.
    tables: Vec<u32>,
    splits: Vec<[u32; 4]>,
    runs: Vec<[u32; 4]>,
    run_lengths: Vec<usize>,
}

impl StepTokens {
    /// Empty buffers for steps within `limits`.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn new(gpu: &Gpu, limits: StepLimits) -> Result<Self, CudaError> {
        let table_words = limits.sequences.checked_mul(limits.pages_per_sequence);
        let words = limits
            .tokens
            .checked_mul(6)
            .and_then(|words| words.checked_add(table_words?))
            .map(|words| words.saturating_add(HEAD_WORDS + 4))
            .filter(|&words| u32::try_from(words).is_ok())
            .ok_or(CudaError::TooLarge {
                what: "step",
                got: limits.pages_per_sequence,
            })?;
        Ok(Self {
            limits,
            buffer: gpu.filled(4 * words, 0)?,
            words: Vec::with_capacity(words),
            num_tokens: 0,
            num_spans: 0,
            tables: Vec::with_capacity(limits.sequences),
            splits: Vec::with_capacity(limits.tokens),
            runs: Vec::with_capacity(limits.tokens),
            run_lengths: Vec::with_capacity(limits.tokens),
        })
    }

    /// Takes a step over, in one copy. Nothing is allocated.
    ///
    /// # Errors
    /// A copy that failed.
    ///
    /// # Panics
    /// When the step is beyond the limits: its maker checks them.
    pub fn fill(&mut self, layout: &StepLayout<'_>) -> Result<(), CudaError> {
        self.fill_by(layout, |buffer, words| buffer.write(0, words))
    }

    /// As [`Self::fill`], with a copy of the caller's.
    pub(crate) fn fill_by(
        &mut self,
        layout: &StepLayout<'_>,
        copy: impl FnOnce(&Buffer, &[u32]) -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        self.check(layout);
        let tokens = layout.positions.len();
        let first_entry = (HEAD_WORDS + 2 * tokens).next_multiple_of(4);
        self.place_tables(layout, first_entry);
        self.sort_tokens(layout);
        let first_run = first_entry + 4 * self.splits.len();
        self.words.clear();
        self.words
            .extend([tokens, self.splits.len(), self.num_spans, first_entry].map(word));
        self.words
            .extend([self.runs.len(), first_run, self.run_tokens(), HEAD_WORDS + tokens].map(word));
        self.words.resize(HEAD_WORDS, 0);
        self.words.extend_from_slice(layout.positions);
        let tables = layout
            .sequences
            .iter()
            .map(|&sequence| self.tables[sequence as usize]);
        self.words.extend(tables);
        self.words.resize(first_entry, 0);
        self.words.extend(self.splits.iter().chain(&self.runs).flatten());
        // Room for as many entries as tokens, so that a table's place does not depend on how tokens are sorted.
        self.words.resize(first_entry + 4 * tokens, 0);
        layout
            .page_tables
            .iter()
            .for_each(|pages| self.words.extend_from_slice(pages));
        self.num_tokens = tokens;
        copy(&self.buffer, &self.words)
    }

    /// Tokens of the step.
    pub fn num_tokens(&self) -> usize {
        self.num_tokens
    }

    /// What the buffers hold.
    pub fn limits(&self) -> StepLimits {
        self.limits
    }

    /// Whether every token is attended in spans. A launch that was recorded for such a step may be replayed for all such steps
    /// of as many tokens.
    pub fn is_split(&self) -> bool {
        self.runs.is_empty()
    }

    /// Spans of the tokens that are attended in spans.
    pub(super) fn num_spans(&self) -> usize {
        self.num_spans
    }

    /// Tokens that are attended in runs.
    pub(super) fn run_tokens(&self) -> usize {
        self.run_lengths.iter().sum()
    }

    /// Tiles of at most so many tokens of one run.
    pub(super) fn num_tiles(&self, tile_tokens: usize) -> usize {
        self.run_lengths
            .iter()
            .map(|length| length.div_ceil(tile_tokens))
            .sum()
    }

    pub(super) fn address(&self) -> u64 {
        self.buffer.address()
    }

    fn check(&self, layout: &StepLayout<'_>) {
        let (tokens, sequences) = (layout.positions.len(), layout.page_tables.len());
        assert_eq!(tokens, layout.sequences.len(), "sequences of the tokens");
        assert!(
            tokens <= self.limits.tokens && sequences <= self.limits.sequences,
            "a step of {tokens} tokens and {sequences} sequences, its buffers hold {:?}",
            self.limits
        );
        for pages in layout.page_tables {
            assert!(
                pages.len() <= self.limits.pages_per_sequence,
                "{} pages, the step's buffers hold {:?}",
                pages.len(),
                self.limits
            );
        }
        for (&position, &sequence) in layout.positions.iter().zip(layout.sequences) {
            let pages = layout.page_tables[sequence as usize].len();
            assert!(
                (position as usize) < pages * PAGE_TOKENS,
                "position {position} of a sequence of {pages} pages"
            );
        }
    }

    fn place_tables(&mut self, layout: &StepLayout<'_>, first_entry: usize) {
        let mut at = first_entry + 4 * layout.positions.len();
        self.tables.clear();
        for pages in layout.page_tables {
            self.tables.push(word(at));
            at += pages.len();
        }
    }

    /// Says for each token whether it is attended in spans or in a run.
    fn sort_tokens(&mut self, layout: &StepLayout<'_>) {
        self.splits.clear();
        self.runs.clear();
        self.run_lengths.clear();
        self.num_spans = 0;
        let (positions, sequences) = (layout.positions, layout.sequences);
        let mut first = 0;
        while first < positions.len() {
            let follows = |at: usize| {
                sequences[at] == sequences[first]
                    && positions[at] as usize == positions[first] as usize + at - first
            };
            let end = (first + 1..positions.len()).find(|&at| !follows(at));
            let end = end.unwrap_or(positions.len());
            let table = self.tables[sequences[first] as usize];
            self.sort_run(first, positions[first] as usize, end - first, table);
            first = end;
        }
    }

    fn sort_run(&mut self, mut first: usize, mut position: usize, mut length: usize, table: u32) {
        let most = most_spans(self.limits);
        while (1..LEAST_RUN).contains(&length) {
            let spans = position / SPAN_TOKENS + 1;
            if self.num_spans + spans > most {
                break;
            }
            let split = [word(first), word(position), table, word(self.num_spans)];
            self.splits.push(split);
            self.num_spans += spans;
            (first, position, length) = (first + 1, position + 1, length - 1);
        }
        if length > 0 {
            let run = [word(first), word(self.run_tokens()), word(position), table];
            self.runs.push(run);
            self.run_lengths.push(length);
        }
    }
}

/// Spans that a step within `limits` leaves to be joined, at most.
pub(super) fn most_spans(limits: StepLimits) -> usize {
    let spans = (limits.pages_per_sequence * PAGE_TOKENS).div_ceil(SPAN_TOKENS);
    spans.saturating_mul(limits.sequences).clamp(256, MOST_SPANS)
}

/// A number of the step; `new` has checked that all of them fit.
fn word(number: usize) -> u32 {
    number as u32
}
