//! Reading ahead: guesses of the next layer's experts. `lookahead.rs` decides how many of them are worth it; storage reads them
//! when nothing else waits.

use std::mem;

use super::{ExpertStore, NONE};
use crate::lookahead::LookaheadStats;
use crate::{ExpertId, ExpertsError};

impl ExpertStore {
    /// Whether [`ExpertStore::read_ahead`] has a use for a guess of the layer about to run, of so many tokens: asked once a layer.
    pub fn wants_guess(&mut self, tokens: usize) -> bool {
        self.lookahead.wants_guess(tokens)
    }

    /// What reading ahead has done.
    pub fn lookahead_stats(&self) -> &LookaheadStats {
        &self.lookahead.stats
    }

    /// Takes a guess of the experts that `layer` will ask for next, for so many tokens, best first, and reads it behind all that
    /// is asked for.
    /// `cost_us` is what the guess took to compute. Never waits, never evicts an expert that was used in the last token
    /// (unless the slots cannot hold one token's experts, so that each of them was), and changes no answer. See
    /// `lookahead.rs` for when it pays.
    ///
    /// # Errors
    /// A layer or expert that does not exist, or one listed twice; nothing is read then.
    pub fn read_ahead(
        &mut self,
        tokens: usize,
        layer: u32,
        experts: &[u32],
        cost_us: f32,
    ) -> Result<(), ExpertsError> {
        self.settle();
        self.guess(tokens, layer, experts, cost_us)
    }

    pub(super) fn guess(
        &mut self,
        tokens: usize,
        layer: u32,
        experts: &[u32],
        cost_us: f32,
    ) -> Result<(), ExpertsError> {
        self.check_list(layer, experts)?;
        let worth = match tokens {
            1 => self.lookahead.guess(layer, experts, cost_us),
            // What has no slot yet comes first.
            _ if self.fetching.missing_submitted < self.fetching.missing.len() => 0,
            _ => experts.len(),
        };
        for &expert in &experts[..worth] {
            let id = ExpertId { layer, expert };
            let known = self.slot_of[self.layout.record(id)] != NONE;
            if known || self.ahead.iter().any(|slot| self.slots[*slot].id == Some(id)) {
                continue;
            }
            let Some(slot_index) = self.slot_for_guess() else { break };
            let slot = &mut self.slots[slot_index];
            if let Err(error) = self.layout.reads(id, &mut slot.reads) {
                self.free.push(slot_index);
                return Err(error);
            }
            self.lookahead.stats.reads += 1;
            self.ahead.push(slot_index);
            self.guesses_reading += 1;
            self.policy.insert_ahead(slot_index, id);
            let request = self.request(slot_index, id);
            self.storage.submit_ahead(request, &self.queue);
        }
        Ok(())
    }

    /// An empty slot for a guess: a free one, or one whose expert was not used in the last token.
    fn slot_for_guess(&mut self) -> Option<usize> {
        if let Some(slot_index) = self.free.pop() {
            return Some(slot_index);
        }
        let (slots, used_in) = (&self.slots, &self.used_in);
        // A token makes one fetch and at most one guess a layer, and each has a number.
        let token = 2 * self.layout.layers.len() as u64;
        let holds_a_token = slots.len() > self.fetching.experts.len() * self.layout.layers.len();
        let recent = self.fetch_number.saturating_sub(token);
        let kept = |slot: usize| {
            slots[slot].pinned || slots[slot].reading || (holds_a_token && used_in[slot] > recent)
        };
        let slot_index = self.policy.victim(&kept)?;
        self.vacate(slot_index);
        self.stats.evictions += 1;
        Some(slot_index)
    }

    /// The demand of `layer` is known: guesses for it that are right stay, or are joined by the fetch while they are still
    /// being read. The others give their slots back, once they have landed if they are under way.
    pub(super) fn settle_guesses(&mut self, layer: u32) {
        if self.ahead.is_empty() {
            return;
        }
        self.land_guesses();
        let mut wanted = mem::take(&mut self.wanted_tags);
        wanted.clear();
        wanted
            .extend(self.ahead.iter().filter(|slot| self.is_wanted(**slot, layer)).map(|slot| *slot as u64));
        if self.guesses_reading > 0 {
            self.storage.settle_ahead(&self.queue, &wanted);
            self.land_guesses();
        }
        self.wanted_tags = wanted;
        let mut ahead = mem::take(&mut self.ahead);
        ahead.retain(|&slot_index| {
            let slot = &self.slots[slot_index];
            let Some(id) = slot.id else { return false }; // Given up, or its read failed, which freed the slot.
            let reading = slot.reading;
            if self.is_wanted(slot_index, layer) {
                self.lookahead.used(!reading);
            } else if !reading {
                self.lookahead.wasted(self.layout.slot_bytes as u64);
                self.vacate(slot_index);
                self.free.push(slot_index);
            } else if id.layer == layer {
                self.lookahead.in_the_way();
            }
            reading
        });
        self.ahead = ahead;
    }

    /// Whether a slot holds, or will hold, an expert that the fetch under way has listed.
    fn is_wanted(&self, slot_index: usize, layer: u32) -> bool {
        let listed = |id: ExpertId| self.listed_in[id.expert as usize] == self.fetch_number;
        self.slots[slot_index].id.is_some_and(|id| id.layer == layer && listed(id))
    }

    /// Takes back guesses whose reads have ended: between fetches nothing else is under way.
    fn land_guesses(&mut self) {
        while let Some(completion) = self.queue.try_next() {
            let _ = self.land(completion); // The error of a guess is nobody's.
        }
    }
}
