//! For measurements: the memory of slots on loan, and filling the slots ahead of time.

use std::mem;

use storage::AlignedBuf;

use super::ExpertStore;
use crate::ExpertsError;

impl ExpertStore {
    /// Lends the memory of up to `count` slots, to measure the drive without memory beyond the budget. The experts in them
    /// are forgotten; no statistics change. A buffer that is gone from the vector afterwards is replaced by a new one.
    ///
    /// # Errors
    /// There is no memory to replace a buffer; its slot is lost then.
    pub fn lend_buffers(
        &mut self,
        count: usize,
        use_buffers: &mut dyn FnMut(&mut Vec<AlignedBuf>),
    ) -> Result<(), ExpertsError> {
        self.settle();
        let evictions = self.stats.evictions;
        let lent: Vec<usize> = (0..count).map_while(|_| self.empty_slot()).collect();
        self.stats.evictions = evictions;
        let take = |slot: &usize| mem::replace(&mut self.slots[*slot].buf, AlignedBuf::empty());
        let mut bufs: Vec<AlignedBuf> = lent.iter().map(take).collect();
        use_buffers(&mut bufs);
        for slot_index in lent {
            self.slots[slot_index].buf = match bufs.pop().filter(|buf| buf.len() == self.layout.slot_bytes) {
                Some(buf) => buf,
                None => AlignedBuf::new(self.layout.slot_bytes)
                    .map_err(|source| ExpertsError::Storage { source })?,
            };
            self.free.push(slot_index);
        }
        Ok(())
    }

    /// Reads experts until the slots are full, as many of each layer, and touches those that are there already.
    /// Returns how many experts that were. `go_on` is asked before each layer.
    ///
    /// # Errors
    /// As [`Fetch::next`].
    pub fn preload(&mut self, go_on: &mut dyn FnMut() -> bool) -> Result<usize, ExpertsError> {
        let (layers, mut loaded) = (self.layout.layers.len(), 0);
        for layer in 0..layers {
            let share = match self.slots.len() == self.layout.record_count {
                true => usize::MAX,
                false => self.slots.len() * (layer + 1) / layers - self.slots.len() * layer / layers,
            };
            let count = share.min(self.layer_expert_count(layer as u32));
            if !go_on() {
                break;
            }
            let experts: Vec<u32> = (0..count as u32).collect();
            let mut fetch = self.fetch(layer as u32, &experts)?;
            while fetch.next()?.is_some() {}
            loaded += count;
        }
        Ok(loaded)
    }
}
