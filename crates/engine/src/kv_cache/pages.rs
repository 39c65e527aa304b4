//! Counted references to numbered things of a pool: pages of keys and values.

/// Hands out the pages of a pool and counts who holds each.
///
/// A page is written by one sequence only, and only behind the tokens that others know of; so a
/// page may be shared while it is still being filled.
#[derive(Debug)]
pub(crate) struct BlockManager {
    /// Holders of each page.
    refs: Vec<u32>,
    free: Vec<u32>,
}

impl BlockManager {
    /// A pool of `pages` free pages.
    pub(crate) fn new(pages: usize) -> Self {
        // Pages are handed out from the low end.
        let free = (0..pages as u32).rev().collect();
        Self { refs: vec![0; pages], free }
    }

    /// Pages of the pool.
    pub(crate) fn len(&self) -> usize {
        self.refs.len()
    }

    /// Free pages.
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// Holders of a page.
    pub(crate) fn refs(&self, page: u32) -> u32 {
        self.refs[page as usize]
    }

    /// A free page, held once.
    pub(crate) fn take(&mut self) -> Option<u32> {
        let page = self.free.pop()?;
        self.refs[page as usize] = 1;
        Some(page)
    }

    /// One holder more.
    pub(crate) fn retain(&mut self, page: u32) {
        debug_assert!(self.refs(page) > 0, "page {page} is free");
        self.refs[page as usize] += 1;
    }

    /// One holder less; without any the page is free.
    pub(crate) fn release(&mut self, page: u32) {
        let refs = &mut self.refs[page as usize];
        *refs -= 1;
        if *refs == 0 {
            self.free.push(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_free_when_its_last_holder_lets_go() {
        let mut blocks = BlockManager::new(2);
        let (a, b) = (blocks.take(), blocks.take());
        assert_eq!((a, b, blocks.take()), (Some(0), Some(1), None));
        blocks.retain(0);
        blocks.release(0);
        assert_eq!((blocks.free(), blocks.refs(0), blocks.refs(1)), (0, 1, 1));
        blocks.release(0);
        assert_eq!((blocks.free(), blocks.take()), (1, Some(0)));
    }
}
