//! The pages of the KV cache: who holds which, and how many hold one.

/// All pages of a cache with their reference counts. Sequences that begin with the same tokens can hold the same full
/// pages; a page is free again when nobody holds it.
#[derive(Debug)]
pub struct PagePool {
    /// How many sequences hold each page.
    holders: Vec<u32>,
    free: Vec<u32>,
}

impl PagePool {
    /// `num_pages` free pages.
    pub fn new(num_pages: u32) -> Self {
        Self {
            holders: vec![0; num_pages as usize],
            // The lowest page is taken first.
            free: (0..num_pages).rev().collect(),
        }
    }

    /// Pages, free or not.
    pub fn num_pages(&self) -> usize {
        self.holders.len()
    }

    /// Pages that nobody holds.
    pub fn num_free(&self) -> usize {
        self.free.len()
    }

    /// How many hold `page`.
    pub fn num_holders(&self, page: u32) -> u32 {
        self.holders[page as usize]
    }

    /// Takes a free page; `None` when there is none.
    pub fn take(&mut self) -> Option<u32> {
        let page = self.free.pop()?;
        self.holders[page as usize] = 1;
        Some(page)
    }

    /// One more holds `page`.
    ///
    /// # Panics
    /// When nobody holds it: its contents would be lost.
    pub fn share(&mut self, page: u32) {
        let holders = &mut self.holders[page as usize];
        assert!(*holders > 0, "page {page} is free and can not be shared");
        *holders += 1;
    }

    /// One less holds `page`.
    ///
    /// # Panics
    /// When nobody does.
    pub fn release(&mut self, page: u32) {
        let holders = &mut self.holders[page as usize];
        assert!(*holders > 0, "page {page} is free already");
        *holders -= 1;
        if *holders == 0 {
            self.free.push(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_free_again_when_its_last_holder_lets_go() {
        let mut pool = PagePool::new(2);
        let (a, b) = (pool.take().unwrap(), pool.take().unwrap());
        assert_eq!((a, b, pool.take()), (0, 1, None));
        pool.share(a);
        pool.release(a);
        assert_eq!((pool.num_free(), pool.num_holders(a)), (0, 1));
        pool.release(a);
        assert_eq!((pool.num_free(), pool.take()), (1, Some(a)));
    }

    #[test]
    #[should_panic(expected = "page 0 is free already")]
    fn releasing_a_free_page_is_a_mistake() {
        PagePool::new(1).release(0);
    }
}
