//! What somebody knows of the cache who hears of page changes alone.

use std::collections::BTreeMap;

use dualgrain_device::{Device, PAGE_TOKENS};
use dualgrain_engine::scheduler::{PageChange, Scheduler, StepReport};
use dualgrain_engine::{SequenceId, Session};

/// Pages that were told of, each with its tokens and all tokens in front of them.
#[derive(Debug, Default)]
pub struct ToldPages(BTreeMap<u32, Vec<u32>>);

impl ToldPages {
    /// Hears of changes, which must make sense in their order.
    fn hear(&mut self, changes: &[PageChange]) {
        for change in changes {
            match change {
                PageChange::Filled { page, parent, tokens } => {
                    assert_eq!(tokens.len(), PAGE_TOKENS);
                    let mut prefix = match parent {
                        Some(parent) => self.0[parent].clone(),
                        None => Vec::new(),
                    };
                    prefix.extend(tokens);
                    assert_eq!(self.0.insert(*page, prefix), None, "page {page} was filled twice");
                }
                PageChange::Forgotten { page } => {
                    assert!(self.0.remove(page).is_some(), "nobody was told of page {page}");
                }
            }
        }
    }

    /// Hears of a step. Whatever a sequence found in the cache was told of before; `tokens` gives the tokens that it began with.
    pub fn hear_step<D: Device>(
        &mut self,
        report: &StepReport,
        scheduler: &Scheduler<D>,
        tokens: impl Fn(SequenceId) -> Vec<u32>,
    ) {
        for &(id, cached) in &report.begun {
            assert!(
                self.know(&tokens(id), cached),
                "{id:?} found more than was told of"
            );
        }
        self.hear(&report.pages);
        self.compare(scheduler.session());
    }

    /// When nothing runs and nothing is kept, nobody knows of any page.
    pub fn hear_the_end<D: Device>(&mut self, scheduler: &mut Scheduler<D>) {
        scheduler.forget_kept();
        self.hear(&scheduler.step().pages);
        assert!(self.0.is_empty(), "pages were forgotten and nobody was told");
    }

    /// Whether the full pages of the first `cached` tokens of `tokens` were told of.
    fn know(&self, tokens: &[u32], cached: usize) -> bool {
        let full = &tokens[..cached / PAGE_TOKENS * PAGE_TOKENS];
        full.is_empty() || self.0.values().any(|prefix| prefix == full)
    }

    /// The full pages of all sequences were told of and no other page.
    fn compare<D: Device>(&self, session: &Session<D>) {
        let mut full: Vec<u32> = Vec::new();
        for sequence in 0..session.limits().num_sequences {
            full.extend(&session.pages(sequence)[..session.len(sequence) / PAGE_TOKENS]);
        }
        full.sort_unstable();
        full.dedup();
        let told: Vec<u32> = self.0.keys().copied().collect();
        assert_eq!(told, full, "pages that were told of and pages that are full");
    }
}
