//! Tells what happens to pages of the cache, for those who route requests by what is cached.

use dualgrain_device::Device;

use super::page_watch::PageWatch;
use super::{Kept, Running, Scheduler, StepReport};
use crate::Session;

impl<D: Device> Scheduler<D> {
    /// Tells from now on of pages that fill and that are forgotten ([`StepReport::pages`]).
    pub fn watch_pages(&mut self) {
        self.session.watch_pages();
        let num_pages = self.session.num_pages();
        self.page_watch.get_or_insert_with(|| PageWatch::new(num_pages));
    }

    /// Tells what happened to pages since the last step.
    pub(super) fn tell_pages(&mut self, report: &mut StepReport) {
        let Some(watch) = &mut self.page_watch else {
            return;
        };
        watch.forget(self.session.take_forgotten(), &mut report.pages);
        let running = self
            .running
            .iter()
            .map(|Running { sequence, slot }| (*slot, &sequence.tokens));
        let kept = self.kept.iter().map(|Kept { slot, tokens }| (*slot, tokens));
        for (slot, tokens) in running.chain(kept) {
            let known = cached_tokens(&self.session, slot, tokens);
            watch.tell(self.session.pages(slot), known, &mut report.pages);
        }
    }
}

/// Those of `tokens` that stand in the cache: mostly all but the last, which is run next.
fn cached_tokens<'a, D: Device>(session: &Session<D>, slot: usize, tokens: &'a [u32]) -> &'a [u32] {
    &tokens[..tokens.len().min(session.len(slot))]
}
