//! The page tables of a session: which pages each sequence holds and how many tokens lie in them.

use dualgrain_device::PAGE_TOKENS;

use super::pages::PagePool;

/// The sequences of a session over one pool of pages.
#[derive(Debug)]
pub(super) struct Tables {
    pool: PagePool,
    /// For each sequence its pages in order; each table has room for a whole context.
    tables: Vec<Vec<u32>>,
    lens: Vec<usize>,
    /// Pages whose tokens were forgotten since they were last asked for; `None` where nobody asks.
    forgotten: Option<Vec<u32>>,
}

impl Tables {
    /// Empty sequences; no table ever grows beyond `pages_per_sequence`.
    pub(super) fn new(num_sequences: usize, pages_per_sequence: usize, num_pages: u32) -> Self {
        Self {
            pool: PagePool::new(num_pages),
            // Not `vec![...]`: clones of a vector have no room.
            tables: (0..num_sequences)
                .map(|_| Vec::with_capacity(pages_per_sequence))
                .collect(),
            lens: vec![0; num_sequences],
            forgotten: None,
        }
    }

    /// Notes from now on which pages are forgotten.
    pub(super) fn watch(&mut self) {
        self.forgotten.get_or_insert_default();
    }

    /// Pages of which no sequence holds all tokens any more that lay there, since the last call; once for each time.
    pub(super) fn take_forgotten(&mut self) -> Vec<u32> {
        self.forgotten.as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub(super) fn pool(&self) -> &PagePool {
        &self.pool
    }

    pub(super) fn tables(&self) -> &[Vec<u32>] {
        &self.tables
    }

    /// Tokens in a sequence; 0 for one that does not exist.
    pub(super) fn len(&self, sequence: usize) -> usize {
        self.lens.get(sequence).copied().unwrap_or(0)
    }

    /// Pages that a sequence must still take to hold `len` tokens.
    pub(super) fn missing(&self, sequence: usize, len: usize) -> usize {
        len.div_ceil(PAGE_TOKENS)
            .saturating_sub(self.tables[sequence].len())
    }

    /// Lets a sequence hold `len` tokens.
    ///
    /// # Panics
    /// When the pool has fewer pages than [`Self::missing`] says.
    pub(super) fn extend(&mut self, sequence: usize, len: usize) {
        for _ in 0..self.missing(sequence, len) {
            let page = self.pool.take().expect("the caller counted the free pages");
            self.tables[sequence].push(page);
        }
        self.lens[sequence] = len;
    }

    /// Lets a sequence hold its first `len` tokens at most and returns how many it holds then. Tokens of a page that another
    /// sequence holds too can only be forgotten together: what comes after them would be written over the other's.
    pub(super) fn truncate(&mut self, sequence: usize, len: usize) -> usize {
        let (Some(table), Some(old)) = (self.tables.get_mut(sequence), self.lens.get_mut(sequence)) else {
            return 0;
        };
        let mut len = len.min(*old);
        let last = len / PAGE_TOKENS;
        let is_shared = |page: &u32| self.pool.num_holders(*page) > 1;
        if len % PAGE_TOKENS > 0 && table.get(last).is_some_and(is_shared) {
            len = last * PAGE_TOKENS;
        }
        // A page that is cut will hold other tokens.
        let is_cut = len % PAGE_TOKENS > 0 && len < *old;
        if let (true, Some(forgotten)) = (is_cut, &mut self.forgotten) {
            forgotten.push(table[last]);
        }
        for page in table.drain(len.div_ceil(PAGE_TOKENS)..).rev() {
            self.pool.release(page);
            if let (0, Some(forgotten)) = (self.pool.num_holders(page), &mut self.forgotten) {
                forgotten.push(page);
            }
        }
        *old = len;
        len
    }

    /// Lets the empty sequence `to` hold the full pages of the first `len` tokens of `from` too; returns how many tokens
    /// these are.
    ///
    /// # Panics
    /// When `to` is not empty.
    pub(super) fn share(&mut self, from: usize, to: usize, len: usize) -> usize {
        assert!(
            self.tables[to].is_empty(),
            "sequence {to} holds tokens of its own"
        );
        let pages = len.min(self.lens[from]) / PAGE_TOKENS;
        let shared: Vec<u32> = self.tables[from][..pages].to_vec();
        for &page in &shared {
            self.pool.share(page);
        }
        self.tables[to].extend_from_slice(&shared);
        self.lens[to] = pages * PAGE_TOKENS;
        self.lens[to]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_forgotten_when_it_is_cut_or_free_and_not_while_another_sequence_holds_it() {
        let mut tables = Tables::new(2, 4, 6);
        tables.extend(0, 2 * PAGE_TOKENS);
        tables.truncate(0, PAGE_TOKENS + 1);
        assert!(tables.take_forgotten().is_empty(), "nobody asked");
        tables.watch();
        tables.extend(0, 2 * PAGE_TOKENS + 3);
        assert_eq!(tables.share(0, 1, 2 * PAGE_TOKENS), 2 * PAGE_TOKENS);
        let pages = tables.tables()[0].clone();
        tables.truncate(0, 0);
        assert_eq!(tables.take_forgotten(), [pages[2]], "the others are shared");
        tables.truncate(1, PAGE_TOKENS + 5);
        assert_eq!(
            tables.take_forgotten(),
            [pages[1]],
            "cut: it will hold other tokens"
        );
        tables.truncate(1, 0);
        assert_eq!(tables.take_forgotten(), [pages[1], pages[0]]);
    }

    #[test]
    fn shared_pages_outlive_their_first_holder_and_are_not_written_over() {
        let mut tables = Tables::new(2, 4, 6);
        tables.extend(0, 2 * PAGE_TOKENS + 3);
        assert_eq!(tables.share(0, 1, 2 * PAGE_TOKENS + 3), 2 * PAGE_TOKENS);
        assert_eq!(tables.pool().num_free(), 3);
        // In the middle of a shared page: the whole page goes.
        assert_eq!(tables.truncate(1, PAGE_TOKENS + 1), PAGE_TOKENS);
        assert_eq!(tables.truncate(0, 0), 0);
        assert_eq!(tables.pool().num_free(), 5);
        assert_eq!(
            tables.truncate(1, PAGE_TOKENS - 1),
            PAGE_TOKENS - 1,
            "nobody else holds it now"
        );
        assert_eq!(tables.truncate(1, 0), 0);
        assert_eq!(tables.pool().num_free(), 6);
    }
}
