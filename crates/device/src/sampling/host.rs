//! The sampling state of devices that compute in the host's memory.

use std::collections::{HashMap, VecDeque};

use super::{Sample, SamplingParams, TokenMask};

/// How much a sampler holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SamplerShape {
    /// Sequences at once.
    pub sequences: usize,
    /// Logits in a row.
    pub vocab_size: usize,
}

/// Where a row of logits belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleRow {
    /// Slot of its sequence in the sampler.
    pub slot: usize,
    /// Position at which the chosen token will stand.
    pub position: usize,
}

/// How often a token occurs in a sequence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenCount {
    /// Whether the prompt has it.
    pub in_prompt: bool,
    /// How often it was generated.
    pub generated: u32,
}

/// The tokens of a sequence that penalties count; empty where no penalty is on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TokenCounts(HashMap<u32, TokenCount>);

/// Calls of `sample` whose results are kept.
const MOST_UNREAD: usize = 2;

/// What a host knows of a sequence.
#[derive(Debug, Clone)]
struct Slot {
    params: SamplingParams,
    counts: TokenCounts,
    mask: Option<TokenMask>,
}

/// Parameters, counts, mask and the last token by slot, and the samples that were not read.
#[derive(Debug, Clone)]
pub struct HostSampler {
    slots: Vec<Slot>,
    last_tokens: Vec<u32>,
    /// The oldest first, at most two.
    unread: VecDeque<Vec<Sample>>,
}

impl TokenCounts {
    /// The counts of a sequence.
    pub fn new(prompt: &[u32], generated: &[u32]) -> Self {
        let mut counts = Self::default();
        for &token in prompt {
            counts.0.entry(token).or_default().in_prompt = true;
        }
        generated.iter().for_each(|&token| counts.add_generated(token));
        counts
    }

    /// Counts a token that was generated.
    pub fn add_generated(&mut self, token: u32) {
        let count = self.0.entry(token).or_default();
        count.generated = count.generated.saturating_add(1);
    }

    /// Every token that occurs, in no order, with its count.
    pub fn iter(&self) -> impl Iterator<Item = (u32, TokenCount)> {
        self.0.iter().map(|(&token, &count)| (token, count))
    }
}

impl HostSampler {
    /// Slots that choose greedily until they are begun.
    pub fn new(shape: SamplerShape) -> Self {
        let greedy = Slot {
            params: SamplingParams::GREEDY,
            counts: TokenCounts::default(),
            mask: None,
        };
        Self {
            slots: vec![greedy; shape.sequences],
            last_tokens: vec![0; shape.sequences],
            unread: VecDeque::with_capacity(2),
        }
    }

    /// Begins a sequence in `slot`, without a mask.
    pub fn begin(&mut self, slot: usize, params: &SamplingParams, prompt: &[u32], generated: &[u32]) {
        let counts = match params.counts_tokens() {
            true => TokenCounts::new(prompt, generated),
            false => TokenCounts::default(),
        };
        self.slots[slot] = Slot {
            params: params.clone(),
            counts,
            mask: None,
        };
    }

    /// Says which tokens the sequence in `slot` may take from now on; `None` allows all.
    pub fn set_mask(&mut self, slot: usize, mask: Option<&TokenMask>) {
        self.slots[slot].mask = mask.cloned();
    }

    /// The mask of a slot.
    pub fn mask(&self, slot: usize) -> Option<&TokenMask> {
        self.slots[slot].mask.as_ref()
    }

    /// Parameters and counts of a slot.
    pub fn slot(&self, slot: usize) -> (&SamplingParams, &TokenCounts) {
        let Slot { params, counts, .. } = &self.slots[slot];
        (params, counts)
    }

    /// Keeps the samples of `rows` until they are read, and counts their tokens.
    pub fn keep(&mut self, rows: &[SampleRow], samples: Vec<Sample>) {
        for (row, sample) in rows.iter().zip(&samples) {
            let Slot { params, counts, .. } = &mut self.slots[row.slot];
            let token = sample.as_ref().map_or(0, |chosen| chosen.token);
            self.last_tokens[row.slot] = token;
            if sample.is_ok() && params.counts_tokens() {
                counts.add_generated(token);
            }
        }
        if self.unread.len() == MOST_UNREAD {
            self.unread.pop_front();
        }
        self.unread.push_back(samples);
    }

    /// The oldest samples that were not read; none where all were.
    pub fn read(&mut self) -> Vec<Sample> {
        self.unread.pop_front().unwrap_or_default()
    }

    /// Forgets the samples that were not read.
    pub fn forget(&mut self) {
        self.unread.clear();
    }

    /// The token that was chosen last for the sequence of each row.
    pub fn last_tokens(&self, rows: &[SampleRow]) -> impl Iterator<Item = u32> {
        rows.iter().map(|row| self.last_tokens[row.slot])
    }
}
