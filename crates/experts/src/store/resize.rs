//! More or fewer slots between fetches.
//!
//! The slots with the highest numbers go, because their memory lies side by side and whole huge pages can be given
//! back. What is worth keeping in them is copied to slots that stay; the policy says what is not.

use storage::AlignedBuf;

use super::{ExpertStore, NONE, Slot};
use crate::ExpertsError;

impl ExpertStore {
    /// Sets the number of slots: at most one for each expert, and at least 1 if there is any. Memory of slots that go is returned to the
    /// system; the experts that the policy would keep are kept. Returns the number of slots there are now.
    ///
    /// # Errors
    /// [`ExpertsError::NoSlots`] for 0; no memory for more slots, which leaves them as they were.
    pub fn resize(&mut self, slots: usize) -> Result<usize, ExpertsError> {
        let slots = slots.min(self.layout.record_count);
        if slots == 0 && self.layout.record_count > 0 {
            return Err(ExpertsError::NoSlots);
        }
        self.settle();
        while self.guesses_reading > 0 {
            let completion = self.wait();
            let _ = self.land(completion); // A guess: its error is nobody's.
        }
        self.ahead.clear();
        match slots >= self.slots.len() {
            true => self.grow(slots)?,
            false => self.shrink(slots),
        }
        Ok(self.slots.len())
    }

    fn grow(&mut self, slots: usize) -> Result<(), ExpertsError> {
        let more = slots - self.slots.len();
        if let Some(missing) = more.checked_sub(self.spare.len()).filter(|missing| *missing > 0) {
            let bufs = AlignedBuf::many(missing, self.layout.slot_bytes)
                .map_err(|source| ExpertsError::Storage { source })?;
            // The last is used first.
            let older = std::mem::replace(&mut self.spare, bufs);
            self.spare.extend(older);
        }
        self.policy.resize(slots);
        for _ in 0..more {
            let Some(buf) = self.spare.pop() else { break };
            self.free.push(self.slots.len());
            self.slots.push(Slot::new(buf));
            self.used_in.push(0);
        }
        Ok(())
    }

    fn shrink(&mut self, slots: usize) {
        // As many free slots among those that stay as there are experts in those that go.
        let mut free_below: Vec<usize> = self.free.iter().copied().filter(|slot| *slot < slots).collect();
        let resident = self.slots.len() - self.free.len();
        for _ in slots..resident {
            let Some(victim) = self.policy.victim(&|_| false) else { break };
            self.vacate(victim);
            self.stats.evictions += 1;
            if victim < slots {
                free_below.push(victim);
            }
        }
        for from in slots..self.slots.len() {
            let Some(id) = self.slots[from].id else { continue };
            let Some(to) = free_below.pop() else {
                debug_assert!(false, "more experts than slots");
                self.vacate(from);
                continue;
            };
            let (stay, go) = self.slots.split_at_mut(slots);
            let (source, target) = (&mut go[from - slots], &mut stay[to]);
            target.buf.copy_from_slice(&source.buf);
            std::mem::swap(&mut target.reads, &mut source.reads);
            target.id = source.id.take();
            self.used_in[to] = self.used_in[from];
            self.policy.relocate(from, to, id);
            self.slot_of[self.layout.record(id)] = to as u32; // Fewer than NONE slots.
        }
        debug_assert!(self.slot_of.iter().all(|slot| *slot == NONE || (*slot as usize) < slots));
        for mut slot in self.slots.drain(slots..).rev() {
            slot.buf.give_back();
            self.spare.push(slot.buf);
        }
        self.used_in.truncate(slots);
        self.policy.resize(slots);
        self.free = (0..slots).rev().filter(|slot| self.slots[*slot].id.is_none()).collect();
    }
}
