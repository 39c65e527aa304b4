//! Reading ahead: guesses of the next layer's experts. `lookahead.rs` decides how many are worth it.

use std::mem;

use super::{ExpertStore, NONE};
use crate::lookahead::LookaheadStats;
use crate::{ExpertId, ExpertsError};

impl ExpertStore {
    /// Whether [`ExpertStore::read_ahead`] has a use for a guess of the layer about to run: asked once a layer.
    pub fn wants_guess(&mut self) -> bool {
        self.lookahead.wants_guess()
    }

    /// What reading ahead has done.
    pub fn lookahead_stats(&self) -> &LookaheadStats {
        &self.lookahead.stats
    }

    /// Takes a guess of the experts that `layer` will ask for next, best first, and reads some of it on an idle drive.
    /// `cost_us` is what the guess took to compute. Never waits, never evicts an expert that was used in the last token
    /// (unless the slots cannot hold one token's experts, so that each of them was), and changes no answer. See
    /// `lookahead.rs` for when it pays.
    ///
    /// # Errors
    /// A layer or expert that does not exist, or one listed twice; nothing is read then.
    pub fn read_ahead(&mut self, layer: u32, experts: &[u32], cost_us: f32) -> Result<(), ExpertsError> {
        self.settle();
        self.check_list(layer, experts)?;
        let mut left = self.lookahead.guess(layer, experts, cost_us);
        for &expert in experts {
            if left == 0 {
                break;
            }
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
            self.submit(slot_index, id);
            left -= 1;
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
    /// being read. The others give their slots back once they have landed.
    pub(super) fn settle_guesses(&mut self, layer: u32) {
        while let Some(completion) = self.queue.try_next() {
            let _ = self.land(completion); // A guess: nothing else is under way between fetches.
        }
        let mut ahead = mem::take(&mut self.ahead);
        ahead.retain(|&slot_index| {
            let slot = &self.slots[slot_index];
            let Some(id) = slot.id else { return false }; // Its read failed, which freed the slot.
            let reading = slot.reading;
            if id.layer == layer && self.listed_in[id.expert as usize] == self.fetch_number {
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
}
