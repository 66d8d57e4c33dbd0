//! Steps that are begun before the tokens of the step in front of them are read.
//!
//! A card that works ahead of its host would idle while the host reads what was chosen and lays the next step out. Where all
//! running sequences decode, the next step needs only tokens that the card has already: it is begun first, then the host reads
//! the tokens of the step in front of it and finds out which sequences ended. What the next step computes for those is dropped.

use dualgrain_device::Device;

use super::{Part, Running, Scheduler, SequenceId, StepReport};
use crate::EngineError;

impl<D: Device> Scheduler<D> {
    /// Whether the tokens of a step of `parts` may be read after the next step was begun: all its sequences decode, so that none is
    /// waited for whose prompt was run, and no scored rows are asked for before the next step; and none is constrained, because its next
    /// mask depends on its token.
    pub(super) fn can_go_ahead(&self, parts: &[Part]) -> bool {
        let decodes = |part: &Part| {
            let sequence = &self.running[part.index].sequence;
            part.num_tokens == 1 && !sequence.generated().is_empty() && !self.is_constrained(part.index)
        };
        self.session.model().device().works_ahead() && parts.iter().all(decodes)
    }

    /// Lets the device choose the next tokens of `complete`, (row of the step, index of the sequence) each; returns the sequences.
    pub(super) fn begin_sample(&mut self, complete: &[(u32, usize)]) -> Result<Vec<SequenceId>, EngineError> {
        let rows: Vec<(u32, usize)> = complete
            .iter()
            .map(|&(row, index)| (row, self.running[index].slot))
            .collect();
        self.session.begin_sample(&rows)?;
        let id = |&(_, index): &(u32, usize)| self.running[index].sequence.id;
        Ok(complete.iter().map(id).collect())
    }

    /// Begins the step after the one whose tokens `sequences` wait for, where that can be; then gives them their tokens.
    pub(super) fn go_ahead(
        &mut self,
        sequences: Vec<SequenceId>,
        report: &mut StepReport,
    ) -> Result<(), EngineError> {
        self.under_way = self.begin_next(&sequences)?;
        let begun = self.under_way.iter().flatten();
        report.computed.extend(begun.map(|&id| (id, 1)));
        let samples = self.session.read_samples()?;
        report.sampled_tokens = samples.len();
        let mut ended = Vec::new();
        for (row, (id, sample)) in sequences.into_iter().zip(samples).enumerate() {
            // A sequence that was cancelled meanwhile has no use for its token.
            if let Some(index) = self.index_of(id, row)
                && self.take_sample(index, sample, &mut report.events)
            {
                ended.push(index);
            }
        }
        self.end_all(ended);
        if self.running.is_empty() && self.under_way.take().is_some() {
            self.session.forget_samples();
        }
        Ok(())
    }

    /// Begins a step of the sequences that go on after the token that `sequences` wait for. `None` where others want to take part,
    /// or pages run short: then the next step is planned when the tokens are known.
    fn begin_next(&mut self, sequences: &[SequenceId]) -> Result<Option<Vec<SequenceId>>, EngineError> {
        let going_on: Vec<usize> = (0..self.running.len())
            .filter(|&index| self.goes_on(index))
            .collect();
        if going_on.is_empty() || !self.are_alone(sequences) || !self.has_pages(&going_on) {
            return Ok(None);
        }
        let slots: Vec<usize> = going_on.iter().map(|&index| self.running[index].slot).collect();
        self.session.run_chosen(&slots)?;
        for &index in &going_on {
            self.num_turns += 1;
            self.running[index].sequence.last_turn = self.num_turns;
        }
        let complete: Vec<(u32, usize)> = (0..).zip(going_on).collect();
        self.begin_sample(&complete).map(Some)
    }

    /// Whether the sequence runs on after its next token, unless that is an end token.
    fn goes_on(&self, index: usize) -> bool {
        let Running { sequence, .. } = &self.running[index];
        let max_tokens = sequence.request.max_tokens.unwrap_or(usize::MAX);
        sequence.generated().len() + 1 < max_tokens
            && sequence.tokens.len() < self.session.limits().context_tokens
    }

    /// Whether nobody else runs, and nobody who waits could.
    fn are_alone(&self, sequences: &[SequenceId]) -> bool {
        let is_full = self.free_slots.is_empty() && self.kept.is_empty();
        // Rows are mostly in the order of the running sequences.
        let waits = |(index, Running { sequence, .. }): (usize, &Running)| {
            sequences.get(index) == Some(&sequence.id) || sequences.contains(&sequence.id)
        };
        self.running.iter().enumerate().all(waits) && (self.waiting.is_empty() || is_full)
    }

    /// Where a sequence stands among the running ones, perhaps at `likely`.
    fn index_of(&self, id: SequenceId, likely: usize) -> Option<usize> {
        let is = |running: &Running| running.sequence.id == id;
        match self.running.get(likely).is_some_and(is) {
            true => Some(likely),
            false => self.running.iter().position(is),
        }
    }

    fn has_pages(&self, going_on: &[usize]) -> bool {
        let missing = going_on.iter().map(|&index| {
            let slot = self.running[index].slot;
            self.session.missing_pages(slot, self.session.len(slot) + 1)
        });
        missing.sum::<usize>() <= self.session.num_free_pages()
    }
}
