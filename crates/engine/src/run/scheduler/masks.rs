//! Which tokens constrained sequences may take next.
//!
//! A mask needs the token before it, so a step with a constrained sequence is never begun ahead of its tokens. Masks are made after a
//! step was begun and before its tokens are chosen: a card runs the step meanwhile. A constraint that fails ends its sequence
//! alone, before anything is chosen for it.

use std::sync::Arc;

use dualgrain_device::Device;

use super::{Event, Scheduler};
use crate::EngineError;

impl<D: Device> Scheduler<D> {
    /// Gives the device the masks of those of `sampled`, (row of the step, index of the sequence) each, that have one. Returns those that
    /// can be sampled; those whose constraint failed, which is told of, join `ended`.
    pub(super) fn mask_rows(
        &mut self,
        sampled: &[(u32, usize)],
        events: &mut Vec<Event>,
        ended: &mut Vec<usize>,
    ) -> Result<Vec<(u32, usize)>, EngineError> {
        let mut sound = Vec::with_capacity(sampled.len());
        for &(row, index) in sampled {
            match self.mask_row(index)? {
                Ok(()) => sound.push((row, index)),
                Err(error) => {
                    let sequence = &mut self.running[index].sequence;
                    let (id, error) = (sequence.id, Arc::new(error));
                    events.push(Event::Failed { id, error });
                    ended.push(index);
                }
            }
        }
        Ok(sound)
    }

    /// Masks one sequence, where it is constrained. The outer error is the device's.
    fn mask_row(&mut self, index: usize) -> Result<Result<(), EngineError>, EngineError> {
        let running = &mut self.running[index];
        let Some(constrained) = &mut running.sequence.constrained else {
            return Ok(Ok(()));
        };
        let end_tokens = &running.sequence.request.end_tokens;
        if let Err(error) = constrained.allow_next(&mut self.mask, end_tokens) {
            return Ok(Err(error.into()));
        }
        self.session.mask_sampling(running.slot, Some(&self.mask))?;
        Ok(Ok(()))
    }

    /// Whether the sequence's next token depends on a mask.
    pub(super) fn is_constrained(&self, index: usize) -> bool {
        self.running[index].sequence.constrained.is_some()
    }
}
