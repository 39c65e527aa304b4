//! For measurements: the memory of slots on loan, and filling the slots ahead of time.

use storage::AlignedBuf;

use super::ExpertStore;
use crate::{Demand, ExpertsError, Phase};

impl ExpertStore {
    /// Lends the memory of up to `count` slots, to measure the drive without memory beyond the
    /// budget. The experts in them are forgotten; no statistics change. A buffer that is gone from
    /// the vector afterwards is replaced by a new one.
    ///
    /// # Errors
    /// There is no memory to replace a buffer; its slot is lost then.
    pub fn lend_buffers(
        &mut self,
        count: usize,
        use_buffers: &mut dyn FnMut(&mut Vec<AlignedBuf>),
    ) -> Result<(), ExpertsError> {
        self.end();
        let evictions = self.loader.stats.evictions;
        let (mut lent, mut bufs) = (Vec::new(), Vec::new());
        while lent.len() < count
            && let Some(empty) = self.loader.empty_slot()
        {
            let (slot, buf) = self.loader.slots.lend(empty);
            lent.push(slot);
            bufs.push(buf);
        }
        self.loader.stats.evictions = evictions;
        use_buffers(&mut bufs);
        let slot_bytes = self.loader.layout.slot_bytes;
        bufs.retain(|buf| buf.len() == slot_bytes);
        for slot in lent {
            let buf = match bufs.pop() {
                Some(buf) => buf,
                None => AlignedBuf::new(slot_bytes).map_err(|source| ExpertsError::Storage { source })?,
            };
            self.loader.slots.take_back(slot, buf);
        }
        Ok(())
    }

    /// Reads experts until the slots are full, as many of each layer, and touches those that are
    /// there already. Returns how many experts that were. `go_on` is asked before each layer.
    ///
    /// # Errors
    /// The first expert that could not be read.
    pub fn preload(&mut self, go_on: &mut dyn FnMut() -> bool) -> Result<usize, ExpertsError> {
        let (layers, slots) = (self.loader.layout.layers.len(), self.slot_count());
        let mut loaded = 0;
        for layer in 0..layers {
            let share = match slots == self.expert_count() {
                true => usize::MAX,
                false => slots * (layer + 1) / layers - slots * layer / layers,
            };
            let layer = layer as u32; // Layers are numbered in 32 bits.
            let count = share.min(self.layer_expert_count(layer));
            if !go_on() {
                break;
            }
            let experts: Vec<u32> = (0..count as u32).collect();
            self.start(&Demand { layer, experts: &experts, phase: Phase::Prefill, tokens: 1, prompt: None })?;
            while !self.next_batch(1, true).is_empty() {}
            self.end();
            if let Some(failed) = self.failures().first() {
                return Err(ExpertsError::Preload { source: failed.error.clone() });
            }
            loaded += count;
        }
        Ok(loaded)
    }
}
