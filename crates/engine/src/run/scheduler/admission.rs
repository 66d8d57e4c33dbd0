//! Which waiting sequence runs next, and what of the cache it begins with.

use dualgrain_device::{Device, PAGE_TOKENS};

use super::{Kept, Running, Scheduler, StepReport};
use crate::EngineError;

/// Share of the pages that must stay free when a sequence is admitted beside others, so that those have room to grow: a 32nd, at
/// least one page.
const WATERMARK: usize = 32;

impl<D: Device> Scheduler<D> {
    /// Lets waiting sequences run while there is room: a slot, and pages for the prompt beside those that run.
    pub(super) fn begin_waiting(&mut self, report: &mut StepReport) -> Result<(), EngineError> {
        while let Some(sequence) = self.waiting.front() {
            let tokens = sequence.tokens.len();
            let Some(slot) = self.place_for(tokens) else {
                return Ok(());
            };
            let Some(sequence) = self.waiting.pop_front() else {
                return Ok(());
            };
            report.num_begun += 1;
            report.begun.push((sequence.id, self.session.len(slot)));
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
            // A kept sequence that begins alike has its pages already, and those beyond become free.
            let (held, released) = self
                .best_kept()
                .map_or((0, 0), |(index, common)| self.pages_of_kept(index, common));
            let pages = tokens.div_ceil(PAGE_TOKENS) - held;
            let free = self.session.num_free_pages() + released;
            let fits = self.running.is_empty() || free >= self.pending_pages() + pages + self.watermark();
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

    /// Pages that must stay free when a sequence is admitted beside others; none where every sequence has room for a full
    /// context, so that pages can not run short.
    fn watermark(&self) -> usize {
        let (limits, num_pages) = (self.session.limits(), self.session.num_pages());
        match num_pages >= limits.num_sequences.saturating_mul(limits.pages_per_sequence()) {
            true => 0,
            false => num_pages.div_ceil(WATERMARK),
        }
    }

    /// Pages that the running sequences' pending tokens take.
    fn pending_pages(&self) -> usize {
        let pending = self.running.iter().map(|running| {
            let tokens = running.sequence.tokens.len();
            self.session.missing_pages(running.slot, tokens)
        });
        pending.sum()
    }

    /// How many pages a kept sequence holds, and how many become free, when it is cut to its first `len` tokens.
    fn pages_of_kept(&self, index: usize, len: usize) -> (usize, usize) {
        let pages = self.session.pages(self.kept[index].slot);
        let is_own = |&&page: &&u32| self.session.num_holders(page) == 1;
        // A page that another sequence holds too can not be cut: see `Session::truncate`.
        let has_part = !len.is_multiple_of(PAGE_TOKENS)
            && pages.get(len / PAGE_TOKENS).is_some_and(|page| is_own(&page));
        let held = len / PAGE_TOKENS + usize::from(has_part);
        (held, pages[held..].iter().filter(is_own).count())
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
