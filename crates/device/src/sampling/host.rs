//! The sampling state of devices that compute in the host's memory.

use std::collections::HashMap;

use super::{Sample, SamplingParams};

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

/// Parameters and counts by slot, and the last samples.
#[derive(Debug, Clone)]
pub struct HostSampler {
    slots: Vec<(SamplingParams, TokenCounts)>,
    samples: Vec<Sample>,
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
        Self {
            slots: vec![(SamplingParams::GREEDY, TokenCounts::default()); shape.sequences],
            samples: Vec::with_capacity(shape.sequences),
        }
    }

    /// Begins a sequence in `slot`.
    pub fn begin(&mut self, slot: usize, params: &SamplingParams, prompt: &[u32], generated: &[u32]) {
        let counts = match params.counts_tokens() {
            true => TokenCounts::new(prompt, generated),
            false => TokenCounts::default(),
        };
        self.slots[slot] = (params.clone(), counts);
    }

    /// Parameters and counts of a slot.
    pub fn slot(&self, slot: usize) -> (&SamplingParams, &TokenCounts) {
        let (params, counts) = &self.slots[slot];
        (params, counts)
    }

    /// The buffer of the last samples, emptied, to be filled and given to [`Self::keep`].
    pub fn take_buffer(&mut self) -> Vec<Sample> {
        let mut buffer = std::mem::take(&mut self.samples);
        buffer.clear();
        buffer
    }

    /// Keeps the samples of `rows` and counts their tokens.
    pub fn keep(&mut self, rows: &[SampleRow], samples: Vec<Sample>) {
        self.samples = samples;
        for (row, sample) in rows.iter().zip(&self.samples) {
            let (params, counts) = &mut self.slots[row.slot];
            if let (true, Ok(chosen)) = (params.counts_tokens(), sample) {
                counts.add_generated(chosen.token);
            }
        }
    }

    /// The samples of the last rows.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }
}
