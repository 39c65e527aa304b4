//! More or fewer slots between fetches.
//!
//! The slots with the highest numbers go, because their memory lies side by side and whole huge
//! pages can be given back. Experts in them that are worth keeping are copied to slots that stay;
//! the policy says which are not.

use storage::AlignedBuf;

use super::ExpertStore;
use crate::ExpertsError;

impl ExpertStore {
    /// Sets the number of slots: at most one for each expert, and at least 1 if there is any.
    /// Memory of slots that go is returned to the system; the experts that the policy would keep
    /// are kept. Returns the number of slots there are now.
    ///
    /// # Errors
    /// [`ExpertsError::NoSlots`] for 0; no memory for more slots, which leaves them as they were.
    pub fn resize(&mut self, slots: usize) -> Result<usize, ExpertsError> {
        let slots = slots.min(self.expert_count());
        if slots == 0 && self.expert_count() > 0 {
            return Err(ExpertsError::NoSlots);
        }
        self.end();
        self.prefetch.finish(&mut self.loader);
        let loader = &mut self.loader;
        match slots.checked_sub(loader.slots.len()) {
            Some(more) => {
                let missing = loader.slots.bufs_missing(more);
                let bufs = AlignedBuf::many(missing, loader.layout.slot_bytes)
                    .map_err(|source| ExpertsError::Storage { source })?;
                loader.slots.grow(more, bufs);
            }
            None => loader.stats.evictions += loader.slots.shrink(slots) as u64,
        }
        Ok(loader.slots.len())
    }
}
