//! Tells what happens to pages of the cache, for those who route requests by what is cached.

use dualgrain_device::{Device, PAGE_TOKENS};

use super::{Kept, PageChange, Running, Scheduler, StepReport};
use crate::Session;

/// Which pages somebody was told of.
#[derive(Debug)]
pub(super) struct PageWatch {
    told: Vec<bool>,
}

impl PageWatch {
    fn new(num_pages: usize) -> Self {
        Self {
            told: vec![false; num_pages],
        }
    }

    fn forget(&mut self, pages: Vec<u32>, changes: &mut Vec<PageChange>) {
        for page in pages {
            if std::mem::take(&mut self.told[page as usize]) {
                changes.push(PageChange::Forgotten { page });
            }
        }
    }

    /// Tells of the full pages of a sequence that hold its first `tokens`. Pages fill in order and are told of in order, so
    /// those in front of one that was told of were told of too.
    fn tell(&mut self, pages: &[u32], tokens: &[u32], changes: &mut Vec<PageChange>) {
        let full = &pages[..(tokens.len() / PAGE_TOKENS).min(pages.len())];
        let is_told = |&page: &u32| self.told[page as usize];
        let first_new = full.iter().rposition(is_told).map_or(0, |last| last + 1);
        for index in first_new..full.len() {
            let page = full[index];
            self.told[page as usize] = true;
            changes.push(PageChange::Filled {
                page,
                parent: index.checked_sub(1).map(|before| full[before]),
                tokens: tokens[index * PAGE_TOKENS..][..PAGE_TOKENS].to_vec(),
            });
        }
    }
}

impl<D: Device> Scheduler<D> {
    /// Tells from now on of pages that fill and that are forgotten ([`StepReport::pages`]).
    pub fn watch_pages(&mut self) {
        self.session.watch_pages();
        let num_pages = self.session.num_pages();
        self.page_watch.get_or_insert_with(|| PageWatch::new(num_pages));
    }

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

/// Those of `tokens` that stand in the cache. A step ahead has run one that the host does not know yet.
fn cached_tokens<'a, D: Device>(session: &Session<D>, slot: usize, tokens: &'a [u32]) -> &'a [u32] {
    &tokens[..tokens.len().min(session.len(slot))]
}
