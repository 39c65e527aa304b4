//! Prefixes between memory and disk.

use std::collections::VecDeque;

use ops::PAGE_TOKENS;

use super::Worker;
use crate::kv_cache::{Held, KvCache};
use crate::runtime::Runtime;
use crate::session_cache::{Kind, SessionCache};

/// Prefixes that wait to be written; of more, the oldest are not.
const PREFIXES_MAX: usize = 16;

/// The directory, and the prefixes still to be written.
pub(super) struct Sessions {
    cache: SessionCache,
    prefixes: VecDeque<Vec<u32>>,
}

impl Sessions {
    pub(super) fn new(cache: SessionCache) -> Self {
        Self { cache, prefixes: VecDeque::new() }
    }

    /// Has a prefix written when there is time.
    pub(super) fn add(&mut self, tokens: &[u32]) {
        if self.prefixes.len() == PREFIXES_MAX {
            self.prefixes.pop_front();
        }
        self.prefixes.push_back(tokens.to_vec());
    }

    /// Brings a sequence to a longer prefix than memory has, of at most `limit` tokens.
    pub(super) fn restore(
        &mut self,
        runtime: &mut dyn Runtime,
        tokens: &[u32],
        limit: usize,
        held: &mut Held,
    ) {
        let Some(stored) = self.cache.lookup(tokens, held.reused, limit) else { return };
        let first = stored.len.div_ceil(PAGE_TOKENS) - stored.pages.len();
        for (name, page) in stored.pages.iter().zip(&held.pages[first..]) {
            // A page that is damaged, or of another length, leaves the sequence where it was.
            let loaded = self.cache.read(name).map(|bytes| runtime.load_page(*page, &bytes));
            let Some(Ok(())) = loaded else { return };
        }
        if let (Some(name), Some(slot)) = (&stored.state, held.slot) {
            let loaded = self.cache.read(name).map(|bytes| runtime.load_state(slot, &bytes));
            let Some(Ok(())) = loaded else { return };
        }
        held.reused = stored.len;
    }

    /// Writes the next file that is missing, or with `wait` all of them.
    fn write(&mut self, runtime: &mut dyn Runtime, kv: &mut KvCache, wait: bool) {
        while let Some(tokens) = self.prefixes.front() {
            if !wait && !self.cache.is_idle() {
                return;
            }
            let found = kv.prefixes.lookup(tokens, tokens.len());
            // Pages that were evicted meanwhile cannot be written.
            let pages = found.pages.iter().enumerate().filter(|_| found.len == tokens.len());
            let page = pages
                .map(|(index, page)| (tokens.len().min((index + 1) * PAGE_TOKENS), *page))
                .map(|(end, page)| (self.cache.name(&tokens[..end], Kind::Page), page))
                .find(|(name, _)| !self.cache.contains(name));
            let state = found.slot.filter(|_| found.len == tokens.len());
            let state = state.map(|slot| (self.cache.name(tokens, Kind::State), slot));
            match (page, state.filter(|(name, _)| !self.cache.contains(name))) {
                (Some((name, page)), _) => {
                    self.cache.write(name, |out| runtime.save_page(page, out).is_ok());
                }
                (None, Some((name, slot))) => {
                    self.cache.write(name, |out| runtime.save_state(slot, out).is_ok());
                    self.prefixes.pop_front();
                }
                (None, None) => {
                    self.prefixes.pop_front();
                    continue;
                }
            }
            if !wait {
                return;
            }
        }
    }
}

impl Worker {
    /// Takes a step towards having everything on disk; with `wait`, all steps.
    pub(super) fn write_sessions(&mut self, wait: bool) {
        if let Some(sessions) = &mut self.sessions {
            sessions.write(self.runtime.as_mut(), &mut self.cache, wait);
        }
    }

    /// Has a prefix written when there is time.
    pub(super) fn write_later(&mut self, tokens: &[u32]) {
        if let Some(sessions) = self.sessions.as_mut().filter(|_| !tokens.is_empty()) {
            sessions.add(tokens);
        }
    }
}
