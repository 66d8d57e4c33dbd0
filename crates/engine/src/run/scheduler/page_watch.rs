//! Which pages of the cache somebody was told of.

use dualgrain_device::PAGE_TOKENS;

use super::event::PageChange;

/// Which pages somebody was told of.
#[derive(Debug)]
pub(super) struct PageWatch {
    told: Vec<bool>,
}

impl PageWatch {
    /// Nobody was told of any.
    pub(super) fn new(num_pages: usize) -> Self {
        Self {
            told: vec![false; num_pages],
        }
    }

    /// Tells of pages that are forgotten, where somebody was told of them.
    pub(super) fn forget(&mut self, pages: Vec<u32>, changes: &mut Vec<PageChange>) {
        for page in pages {
            if std::mem::take(&mut self.told[page as usize]) {
                changes.push(PageChange::Forgotten { page });
            }
        }
    }

    /// Tells of the full pages of a sequence that hold its first `tokens`. Pages fill in order and are told of in order, so
    /// those in front of one that was told of were told of too.
    pub(super) fn tell(&mut self, pages: &[u32], tokens: &[u32], changes: &mut Vec<PageChange>) {
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
