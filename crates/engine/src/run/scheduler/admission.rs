//! Which waiting sequence runs next, and what of the cache it begins with.

use dualgrain_device::{Device, PAGE_TOKENS};

use super::{Kept, Running, Scheduler};
use crate::EngineError;

/// Pages that must stay free when a sequence is admitted beside others: a 32nd, so that those have room to grow.
const WATERMARK: usize = 32;

impl<D: Device> Scheduler<D> {
    /// Lets waiting sequences run while there is room: a slot, and pages for the prompt beside those that run.
    pub(super) fn begin_waiting(&mut self) -> Result<(), EngineError> {
        while let Some(sequence) = self.waiting.front() {
            let tokens = sequence.tokens.len();
            let Some(slot) = self.place_for(tokens) else {
                return Ok(());
            };
            let Some(sequence) = self.waiting.pop_front() else {
                return Ok(());
            };
            self.running.push(Running { sequence, slot });
            self.begin_sampling()?;
        }
        Ok(())
    }

    /// Tells the device how the sequence that was added last chooses its tokens.
    fn begin_sampling(&mut self) -> Result<(), EngineError> {
        let Some(Running { sequence, slot }) = self.running.last() else {
            return Ok(());
        };
        let request = &sequence.request;
        self.session
            .begin_sampling(*slot, &request.sampling, &request.prompt, sequence.generated())
    }

    /// A slot that already holds the beginning of the first waiting sequence where one does, with room for `tokens` tokens.
    fn place_for(&mut self, tokens: usize) -> Option<usize> {
        loop {
            // A kept sequence that begins alike has its pages already.
            let there = self.best_kept().map_or(0, |(_, common)| common / PAGE_TOKENS);
            let pages = tokens.div_ceil(PAGE_TOKENS) - there;
            let fits = self.running.is_empty()
                || self.pages_to_spare() >= pages + self.session.num_pages() / WATERMARK;
            let has_slot = !self.free_slots.is_empty() || self.best_kept().is_some();
            if fits && has_slot {
                return self.reuse_prefix();
            }
            // What ended sequences left gives way to those that wait.
            if !self.drop_oldest_kept() {
                return None;
            }
        }
    }

    /// Free pages beyond those that the running sequences' pending tokens take.
    fn pages_to_spare(&self) -> usize {
        let pending = self.running.iter().map(|running| {
            let tokens = running.sequence.tokens.len();
            self.session.missing_pages(running.slot, tokens)
        });
        self.session.num_free_pages().saturating_sub(pending.sum())
    }

    /// The slot for the first waiting sequence: a kept one that begins alike, or a free one that shares the pages of a running one.
    fn reuse_prefix(&mut self) -> Option<usize> {
        if let Some((index, common)) = self.best_kept() {
            let kept = self.kept.remove(index);
            self.session.truncate(kept.slot, common);
            return Some(kept.slot);
        }
        let slot = self.free_slots.pop()?;
        if let Some((from, common)) = self.best_running() {
            // Both slots exist and `slot` is empty, so nothing can be refused; sharing nothing would be right too.
            let _ = self.session.share_prefix(from, slot, common);
        }
        Some(slot)
    }

    /// The kept sequence that has most in common with the first waiting one, at least a page or half of what it holds.
    fn best_kept(&self) -> Option<(usize, usize)> {
        let wanted = self.waiting.front()?.reusable();
        let common = |kept: &Kept| common_prefix(&kept.tokens, wanted);
        let worth =
            |(_, kept): &(usize, &Kept)| common(kept) >= PAGE_TOKENS || 2 * common(kept) > kept.tokens.len();
        let candidates = self.kept.iter().enumerate().filter(worth);
        let best = candidates.max_by_key(|(_, kept)| common(kept))?;
        Some((best.0, common(best.1)))
    }

    /// The running sequence whose cache has most in common with the first waiting one.
    fn best_running(&self) -> Option<(usize, usize)> {
        let wanted = self.waiting.front()?.reusable();
        let common = |running: &Running| {
            let cached = self.session.len(running.slot);
            common_prefix(&running.sequence.tokens[..cached], wanted)
        };
        let best = self.running.iter().max_by_key(|running| common(running))?;
        Some((best.slot, common(best)))
    }
}

/// How many tokens of `wanted` stand at the beginning of `cached` too.
fn common_prefix(cached: &[u32], wanted: &[u32]) -> usize {
    cached.iter().zip(wanted).take_while(|(a, b)| a == b).count()
}
