//! Keys, values and recurrent states: which pages and slots a sequence has, and what is kept for
//! the next one.

mod pages;
mod prefix;

pub(crate) use pages::BlockManager;
pub(crate) use prefix::{Keep, Match, PrefixCache};

use ops::PAGE_TOKENS;

use crate::runtime::Runtime;

/// The pools of one model.
pub(crate) struct KvCache {
    pub(crate) blocks: BlockManager,
    pub(crate) prefixes: PrefixCache,
    /// Free recurrent slots.
    free_slots: Vec<u32>,
    slots: usize,
}

/// Pages and recurrent slot of a running sequence.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// One for each [`PAGE_TOKENS`] tokens that it can get.
    pub(crate) pages: Vec<u32>,
    /// `None` in models without recurrent layers.
    pub(crate) slot: Option<u32>,
    /// Leading tokens that were computed before.
    pub(crate) reused: usize,
}

impl KvCache {
    /// Empty pools; `slots` is 0 in models without recurrent layers.
    pub(crate) fn new(pages: usize, slots: usize) -> Self {
        Self {
            blocks: BlockManager::new(pages),
            prefixes: PrefixCache::new(slots > 0),
            free_slots: (0..slots as u32).rev().collect(),
            slots,
        }
    }

    /// Whether there are recurrent layers.
    pub(crate) fn is_recurrent(&self) -> bool {
        self.slots > 0
    }

    /// Free recurrent slots.
    #[cfg(test)]
    pub(crate) fn free_slots(&self) -> usize {
        self.free_slots.len()
    }

    /// Reserves all that a sequence of `total` tokens can need and brings it to the longest prefix
    /// of `tokens` that was computed, at most `reuse_max` of them. `None`: not now; nothing has
    /// changed but the cache of prefixes.
    pub(crate) fn reserve(
        &mut self,
        runtime: &mut dyn Runtime,
        tokens: &[u32],
        reuse_max: usize,
        total: usize,
    ) -> Option<Held> {
        let found = match reuse_max {
            0 => Match::default(),
            max => self.prefixes.lookup(tokens, max.min(tokens.len())),
        };
        // The prefix that was found must not be evicted meanwhile.
        found.pages.iter().for_each(|page| self.blocks.retain(*page));
        let held = self.take_pages(&found, total).and_then(|pages| self.take_slot(&found, pages));
        let shared = found.len / PAGE_TOKENS;
        match held {
            Some(held) => {
                self.fill(runtime, &found, &held);
                found.pages[shared.min(found.pages.len())..]
                    .iter()
                    .for_each(|page| self.blocks.release(*page));
                Some(held)
            }
            None => {
                found.pages.iter().for_each(|page| self.blocks.release(*page));
                None
            }
        }
    }

    /// The shared pages and free ones for the rest.
    fn take_pages(&mut self, found: &Match, total: usize) -> Option<Vec<u32>> {
        let shared = found.len / PAGE_TOKENS;
        let count = total.div_ceil(PAGE_TOKENS);
        while self.blocks.free() < count - shared {
            if !self.prefixes.evict_page(&mut self.blocks, &mut self.free_slots) {
                return None;
            }
        }
        let mut pages = found.pages[..shared].to_vec();
        pages.extend((shared..count).map_while(|_| self.blocks.take()));
        Some(pages)
    }

    fn take_slot(&mut self, found: &Match, pages: Vec<u32>) -> Option<Held> {
        let reused = found.len;
        if !self.is_recurrent() {
            return Some(Held { pages, slot: None, reused });
        }
        let slot = self.free_slots.pop().or_else(|| self.prefixes.evict_snapshot(Keep::Mark, found.slot));
        // The last slot of all: go on from the snapshot itself.
        let slot = slot.or_else(|| found.slot.inspect(|slot| self.prefixes.adopt(*slot)));
        if slot.is_none() {
            pages[found.len / PAGE_TOKENS..].iter().for_each(|page| self.blocks.release(*page));
        }
        slot.map(|slot| Held { pages, slot: Some(slot), reused })
    }

    /// Copies what cannot be shared: the last page if it is in part another's, and the recurrent
    /// state.
    fn fill(&mut self, runtime: &mut dyn Runtime, found: &Match, held: &Held) {
        let (shared, rest) = (found.len / PAGE_TOKENS, found.len % PAGE_TOKENS);
        if rest > 0 {
            runtime.copy_page(found.pages[shared], held.pages[shared], rest as u32);
        }
        match (held.slot, found.slot) {
            (Some(own), Some(from)) if own != from => runtime.copy_state(from, own),
            (Some(own), None) => runtime.clear_state(own),
            _ => {}
        }
    }

    /// A slot for a snapshot that is worth `keep`, at the cost of lesser ones.
    pub(crate) fn snapshot_slot(&mut self, keep: Keep) -> Option<u32> {
        let free = self.free_slots.pop();
        match keep {
            Keep::Periodic => free,
            _ => free.or_else(|| self.prefixes.evict_snapshot(keep, None)),
        }
    }

    /// Remembers the prefix `tokens` of a sequence, with the state after it in a slot that is from
    /// now on the cache's.
    pub(crate) fn remember(&mut self, tokens: &[u32], pages: &[u32], snapshot: Option<(u32, Keep)>) {
        let spare = self.prefixes.insert(tokens, pages, snapshot, &mut self.blocks);
        self.free_slots.extend(spare);
    }

    /// Takes back a slot.
    pub(crate) fn give_back_slot(&mut self, slot: u32) {
        debug_assert!(!self.free_slots.contains(&slot));
        self.free_slots.push(slot);
    }

    /// Takes back what a sequence held.
    pub(crate) fn release(&mut self, held: Held) {
        held.pages.iter().for_each(|page| self.blocks.release(*page));
        if let Some(slot) = held.slot {
            self.give_back_slot(slot);
        }
    }
}
