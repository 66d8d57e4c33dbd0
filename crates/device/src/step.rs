//! The tokens of one step: which position and which sequence each has.

/// How much a device's step buffers hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepLimits {
    /// Tokens in one step, over all sequences.
    pub tokens: usize,
    /// Sequences at once.
    pub sequences: usize,
    /// Pages of one sequence.
    pub pages_per_sequence: usize,
}

/// A ragged step: tokens of one or many sequences that are run together, as the host lays them out.
#[derive(Debug, Clone, Copy)]
pub struct StepLayout<'a> {
    /// Position of each token in its sequence. Positions of one sequence ascend within a step.
    pub positions: &'a [u32],
    /// For each token, the index of its sequence in `page_tables`.
    pub sequences: &'a [u32],
    /// For each sequence its pages in order: position `p` lives in page `table[p / PAGE_TOKENS]`.
    pub page_tables: &'a [Vec<u32>],
}

/// A step in the host's memory, for devices that compute there: buffers of fixed capacity that are filled once a step.
#[derive(Debug, Clone)]
pub struct HostStep {
    limits: StepLimits,
    /// `[tokens]`
    positions: Vec<u32>,
    /// `[tokens]`
    sequences: Vec<u32>,
    /// `[sequences][pages]`
    page_tables: Vec<Vec<u32>>,
}

impl HostStep {
    /// Empty buffers for steps within `limits`.
    pub fn new(limits: StepLimits) -> Self {
        let table = || Vec::with_capacity(limits.pages_per_sequence);
        Self {
            limits,
            positions: Vec::with_capacity(limits.tokens),
            sequences: Vec::with_capacity(limits.tokens),
            page_tables: std::iter::repeat_with(table).take(limits.sequences).collect(),
        }
    }

    /// Takes a step over. Nothing is allocated.
    ///
    /// # Panics
    /// When the step is beyond the limits: its maker checks them.
    pub fn fill(&mut self, layout: &StepLayout<'_>) {
        let (tokens, sequences) = (layout.positions.len(), layout.page_tables.len());
        assert_eq!(tokens, layout.sequences.len(), "sequences of the tokens");
        assert!(
            tokens <= self.limits.tokens && sequences <= self.limits.sequences,
            "a step of {tokens} tokens and {sequences} sequences, its buffers hold {:?}",
            self.limits
        );
        self.positions.clear();
        self.positions.extend_from_slice(layout.positions);
        self.sequences.clear();
        self.sequences.extend_from_slice(layout.sequences);
        for (table, pages) in self.page_tables.iter_mut().zip(layout.page_tables) {
            assert!(
                pages.len() <= self.limits.pages_per_sequence,
                "{} pages, the step's buffers hold {:?}",
                pages.len(),
                self.limits
            );
            table.clear();
            table.extend_from_slice(pages);
        }
    }

    /// Tokens of the step.
    pub fn num_tokens(&self) -> usize {
        self.positions.len()
    }

    /// Position of each token in its sequence.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// Index of each token's sequence.
    pub fn sequences(&self) -> &[u32] {
        &self.sequences
    }

    /// Pages of the sequence that `token` belongs to, in order.
    pub fn page_table(&self, token: usize) -> &[u32] {
        &self.page_tables[self.sequences[token] as usize]
    }

    /// Positions that the pages of a sequence have room for.
    pub fn context_tokens(&self) -> usize {
        self.limits.pages_per_sequence.saturating_mul(crate::PAGE_TOKENS)
    }
}
