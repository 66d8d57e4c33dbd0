//! The tokens of a step in a card's memory.

use dualgrain_device::naive::SPAN_TOKENS;
use dualgrain_device::{PAGE_TOKENS, StepLayout, StepLimits};

use crate::driver::{Buffer, Gpu};
use crate::error::CudaError;

/// Adjacent tokens of one sequence that are attended together rather than each in spans of its own.
const LEAST_RUN: usize = 32;
/// Spans that wait for each other's results at most: what is beyond is attended as runs are.
const MOST_SPANS: usize = 8_192;
/// Pages of a span.
const SPAN_PAGES: usize = SPAN_TOKENS / PAGE_TOKENS;
/// Pages of a token that one block attends at most, one span after the other (cu/attention/ring/page_ring.cuh).
const MOST_WHOLE_PAGES: usize = 32;
/// Fewer tokens go in single spans: their kernel does without the loop over spans, and makes codes, which pays where few tokens end a step.
const LEAST_WHOLE: usize = 8;
/// Pages of a block that go in single spans.
const SPREAD_PAGES: usize = 24;
/// Key/value heads of a usual model: which pieces are whole tokens changes no result.
const USUAL_HEADS: usize = 8;
/// Words before the positions.
const HEAD_WORDS: usize = 16;

/// Positions, sequences and page tables of a step on a card, buffers of fixed capacity that are filled once a step.
///
/// In 32-bit words: 16 of counts and offsets (`StepHead` in cu/attention/attention.cuh), `[tokens]` positions, `[tokens]` offsets
/// of their page tables, split tokens and runs of four words each, page tables one behind the other, spans of split tokens of four words
/// each.
pub struct StepTokens {
    limits: StepLimits,
    buffer: Buffer,
    words: Vec<u32>,
    num_tokens: usize,
    num_spans: usize,
    /// Where each sequence's page table begins.
    tables: Vec<u32>,
    /// Each sequence's first position in the step.
    first_positions: Vec<u32>,
    splits: Vec<[u32; 4]>,
    /// What [`sort_pieces`] gives for the step.
    pieces: Vec<[u32; 4]>,
    /// Split tokens whose spans are pieces of their own.
    apart: Vec<[u32; 4]>,
    /// Pages of a step's end that go in single spans, so that blocks end together.
    spread_pages: usize,
    /// Steps of fewer tokens have none that goes whole.
    least_whole: usize,
    is_single: bool,
    runs: Vec<[u32; 4]>,
    run_lengths: Vec<usize>,
}

impl StepTokens {
    /// Empty buffers for steps within `limits`.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn new(gpu: &Gpu, limits: StepLimits) -> Result<Self, CudaError> {
        let spread_pages = SPREAD_PAGES * gpu.info().num_sms / USUAL_HEADS;
        let step = Self::with_spread_pages(gpu, limits, spread_pages)?;
        Ok(Self {
            least_whole: LEAST_WHOLE,
            ..step
        })
    }

    /// As [`Self::new`]; at least so many pages of a step go in single spans, and what is beyond in whole tokens. It changes no result.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_spread_pages(gpu: &Gpu, limits: StepLimits, spread_pages: usize) -> Result<Self, CudaError> {
        let table_words = limits.sequences.checked_mul(limits.pages_per_sequence);
        let words = limits
            .tokens
            .checked_mul(6)
            .and_then(|words| words.checked_add(table_words?))
            .map(|words| words.saturating_add(HEAD_WORDS + 8 + 4 * most_spans(limits)))
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
            first_positions: Vec::with_capacity(limits.sequences),
            splits: Vec::with_capacity(limits.tokens),
            pieces: Vec::with_capacity(most_spans(limits)),
            apart: Vec::with_capacity(limits.tokens),
            spread_pages,
            least_whole: 0,
            is_single: false,
            runs: Vec::with_capacity(limits.tokens),
            run_lengths: Vec::with_capacity(limits.tokens),
        })
    }

    /// Takes a step over, in one copy. Nothing is allocated.
    ///
    /// What the sequences hold before their first positions in the step is launched, or in the cache, before this copy: attention reads
    /// whole pages of it before the launches in front of it are done.
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
        self.sort_pieces(layout);
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
        self.words.resize(self.words.len().next_multiple_of(4), 0);
        self.words[8] = word(self.pieces.len());
        self.words[9] = word(self.words.len());
        self.words.extend(self.pieces.iter().flatten());
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

    /// Whether, besides, no two tokens are of one sequence. As of [`Self::is_split`], what was recorded for such a step may be
    /// replayed for another one.
    pub fn is_single(&self) -> bool {
        self.is_split() && self.is_single
    }

    /// Whether tokens may go whole, by how many there are.
    pub(super) fn may_be_whole(&self) -> bool {
        self.num_tokens >= self.least_whole
    }

    /// Spans of the tokens that are attended in spans.
    pub(super) fn num_spans(&self) -> usize {
        self.num_spans
    }

    /// Tokens that are attended in spans.
    pub(super) fn span_tokens(&self) -> usize {
        self.splits.len()
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

    fn sort_pieces(&mut self, layout: &StepLayout<'_>) {
        self.first_positions.clear();
        self.first_positions.resize(layout.page_tables.len(), u32::MAX);
        for (&position, &sequence) in layout.positions.iter().zip(layout.sequences) {
            let first = &mut self.first_positions[sequence as usize];
            *first = position.min(*first);
        }
        let begun = self.first_positions.iter().filter(|&&first| first < u32::MAX);
        self.is_single = begun.count() == layout.positions.len();
        let settled = |token: u32| {
            let sequence = layout.sequences[token as usize];
            self.first_positions[sequence as usize] as usize / PAGE_TOKENS
        };
        let spread = match layout.positions.len() >= self.least_whole {
            true => self.spread_pages,
            false => usize::MAX,
        };
        self.pieces.clear();
        self.apart.clear();
        sort_pieces((&mut self.pieces, &mut self.apart), &self.splits, settled, spread);
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

/// Pieces of split tokens: whole tokens of few spans first, whose spans need not wait for each other, as long as `spread` pages remain;
/// then the spans of the others, those with more pages first. So blocks that come for one after the other end together. Four words each:
/// the token's first three of `splits`, then its first slot and the span's number (13 bits each), how many pages of the piece, of the
/// sequence's `settled` ones, earlier steps have written whole (5 bits), and whether it is a whole token.
fn sort_pieces(
    (pieces, apart): (&mut Vec<[u32; 4]>, &mut Vec<[u32; 4]>),
    splits: &[[u32; 4]],
    settled: impl Fn(u32) -> usize,
    spread: usize,
) {
    let seen = |split: &[u32; 4]| split[1] as usize / PAGE_TOKENS + 1;
    let mut rest: usize = splits.iter().map(seen).sum();
    for split in splits {
        let pages = seen(split);
        if (SPAN_PAGES + 1..=MOST_WHOLE_PAGES).contains(&pages) && rest >= spread.saturating_add(pages) {
            rest -= pages;
            let [token, position, table, first_slot] = *split;
            let settled = settled(token).min(MOST_WHOLE_PAGES - 1);
            pieces.push([token, position, table, first_slot | word(settled) << 26 | 1 << 31]);
        } else {
            apart.push(*split);
        }
    }
    for pages in (1..=SPAN_PAGES).rev() {
        for split in apart.iter() {
            let [token, position, table, first_slot] = *split;
            let whole = if pages == SPAN_PAGES {
                seen(split) / SPAN_PAGES
            } else {
                0
            };
            let last = (seen(split) % SPAN_PAGES == pages).then_some(seen(split) / SPAN_PAGES);
            pieces.extend((0..whole).chain(last).map(|span| {
                let settled = settled(token).saturating_sub(span * SPAN_PAGES).min(SPAN_PAGES);
                let place = first_slot | word(span) << 13 | word(settled) << 26;
                [token, position, table, place]
            }));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_spans_come_first_and_know_their_settled_pages() {
        // Spans of 8, 8 and 2 pages, the last of which is written now; one of 8; one of 3, of a sequence that begins in this step.
        let splits = [[0, 1_099, 70, 0], [1, 511, 90, 3], [2, 130, 98, 4]];
        let settled = |token: u32| [17, 7, 0][token as usize];
        let place = |slot: u32, span: u32, settled: u32| slot | span << 13 | settled << 26;
        let rest = [[1, 511, 90, place(3, 0, 7)], [2, 130, 98, place(4, 0, 0)]];
        let sorted = |spread| {
            let mut pieces = Vec::new();
            sort_pieces((&mut pieces, &mut Vec::new()), &splits, settled, spread);
            pieces
        };
        let first = |span, settled| [0, 1_099, 70, place(0, span, settled)];
        let apart = [first(0, 8), first(1, 8), rest[0], rest[1], first(2, 1)];
        assert_eq!(sorted(12), apart);
        let whole = [0, 1_099, 70, place(0, 0, 17) | 1 << 31];
        assert_eq!(sorted(11), [whole, rest[0], rest[1]]);
    }
}
