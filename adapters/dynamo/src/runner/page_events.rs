//! Pages of the cache as the blocks that Dynamo's router knows: named by the hash of their tokens and of all tokens in front of them.

use std::collections::HashMap;

use dualgrain::PAGE_TOKENS;
use dualgrain::engine::scheduler::PageChange;
use dynamo_backend_common::KvEventPublisher;
use dynamo_llm::kv_router::protocols::{
    BlockHashOptions, ExternalSequenceBlockHash, KvCacheEvent, KvCacheEventData, KvCacheRemoveData,
    KvCacheStoreData, KvCacheStoredBlockData, compute_block_hash_for_seq, compute_next_seq_hash,
};

/// Which blocks the pages hold. Several pages may hold the same block: it is stored with the first and removed with the last.
#[derive(Debug, Default)]
pub struct PageEvents {
    /// The block in each page that is full.
    blocks: HashMap<u32, u64>,
    /// Pages that hold each block.
    num_pages: HashMap<u64, usize>,
}

impl PageEvents {
    /// What changed for the router, in order.
    pub fn take(&mut self, changes: Vec<PageChange>) -> Vec<KvCacheEventData> {
        changes
            .into_iter()
            .filter_map(|change| self.take_one(change))
            .collect()
    }

    fn take_one(&mut self, change: PageChange) -> Option<KvCacheEventData> {
        match change {
            PageChange::Filled { page, parent, tokens } => {
                let hashes =
                    compute_block_hash_for_seq(&tokens, PAGE_TOKENS as u32, BlockHashOptions::default());
                let tokens_hash = *hashes.first()?;
                // A page in front of it that nobody knows would make it the beginning of other prompts.
                let parent = match parent {
                    Some(parent) => Some(*self.blocks.get(&parent)?),
                    None => None,
                };
                let block = parent.map_or(tokens_hash.0, |parent| compute_next_seq_hash(parent, tokens_hash));
                self.blocks.insert(page, block);
                let num_pages = self.num_pages.entry(block).or_default();
                *num_pages += 1;
                (*num_pages == 1).then(|| {
                    KvCacheEventData::Stored(KvCacheStoreData {
                        parent_hash: parent.map(ExternalSequenceBlockHash),
                        start_position: None,
                        blocks: vec![KvCacheStoredBlockData {
                            block_hash: ExternalSequenceBlockHash(block),
                            tokens_hash,
                            mm_extra_info: None,
                        }],
                    })
                })
            }
            PageChange::Forgotten { page } => {
                let block = self.blocks.remove(&page)?;
                let num_pages = self.num_pages.get_mut(&block)?;
                *num_pages -= 1;
                (*num_pages == 0).then(|| {
                    self.num_pages.remove(&block);
                    KvCacheEventData::Removed(KvCacheRemoveData {
                        block_hashes: vec![ExternalSequenceBlockHash(block)],
                    })
                })
            }
        }
    }

    /// Tells the router.
    pub fn publish(publisher: &KvEventPublisher, events: Vec<KvCacheEventData>) {
        let event = |data| KvCacheEvent {
            event_id: publisher.next_event_id(),
            data,
            dp_rank: 0,
        };
        let events = events.into_iter().map(event).collect();
        // The publisher is gone when the worker ends; nobody routes to it then.
        let _ = publisher.publish_batch(events);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(page: u32, parent: Option<u32>, first: u32) -> PageChange {
        let tokens = (first..).take(PAGE_TOKENS).collect();
        PageChange::Filled { page, parent, tokens }
    }

    fn stored(event: &KvCacheEventData) -> (Option<u64>, u64) {
        match event {
            KvCacheEventData::Stored(data) => {
                (data.parent_hash.map(|hash| hash.0), data.blocks[0].block_hash.0)
            }
            other => panic!("expected a stored block, got {other:?}"),
        }
    }

    #[test]
    fn blocks_are_named_as_the_router_names_those_of_a_prompt() {
        use dynamo_llm::kv_router::protocols::compute_seq_hash_for_block;

        let mut pages = PageEvents::default();
        let events = pages.take(vec![filled(7, None, 0), filled(3, Some(7), 64)]);
        let prompt: Vec<u32> = (0..128).collect();
        let local = compute_block_hash_for_seq(&prompt, PAGE_TOKENS as u32, BlockHashOptions::default());
        let whole = compute_seq_hash_for_block(&local);
        assert_eq!(stored(&events[0]), (None, whole[0]));
        assert_eq!(stored(&events[1]), (Some(whole[0]), whole[1]));
    }

    #[test]
    fn a_page_behind_an_unknown_one_is_not_told_of() {
        let mut pages = PageEvents::default();
        assert!(pages.take(vec![filled(1, Some(0), 64)]).is_empty());
        assert!(pages.take(vec![PageChange::Forgotten { page: 1 }]).is_empty());
    }

    #[test]
    fn a_block_in_two_pages_is_stored_once_and_removed_with_the_last() {
        let mut pages = PageEvents::default();
        assert_eq!(pages.take(vec![filled(0, None, 5), filled(1, None, 5)]).len(), 1);
        assert!(pages.take(vec![PageChange::Forgotten { page: 0 }]).is_empty());
        let removed = pages.take(vec![PageChange::Forgotten { page: 1 }]);
        assert!(matches!(&removed[..], [KvCacheEventData::Removed(_)]));
        assert_eq!(pages.take(vec![filled(0, None, 5)]).len(), 1, "stored anew");
    }
}
