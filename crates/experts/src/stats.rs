//! Counts of the store's work: an observer that changes nothing.

use std::time::Duration;

/// Work of the store since it was made or [`crate::ExpertStore::reset_stats`] was called.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStats {
    /// Demands that were accepted by [`crate::ExpertStore::start`].
    pub fetches: u64,
    /// Experts demanded: `hits` + `misses`.
    pub requests: u64,
    /// Experts that were resident when they were demanded.
    pub hits: u64,
    /// Experts that were not.
    pub misses: u64,
    /// Bytes that the drive delivered for experts, widened to blocks.
    pub bytes_read: u64,
    /// Time that the consumer was blocked because no expert was ready.
    pub read_wait_us: u64,
    /// Experts that made room for others.
    pub evictions: u64,
    /// Checksums compared.
    pub verifications: u64,
}

impl StoreStats {
    /// Share of the demanded experts that were resident, 0 if none was demanded.
    pub fn hit_rate(&self) -> f64 {
        if self.requests == 0 { 0.0 } else { self.hits as f64 / self.requests as f64 }
    }

    /// A demand was taken apart into hits and misses.
    pub(crate) fn demanded(&mut self, hits: usize, misses: usize) {
        self.fetches += 1;
        self.requests += (hits + misses) as u64;
        self.hits += hits as u64;
        self.misses += misses as u64;
    }

    /// The consumer was blocked.
    pub(crate) fn waited(&mut self, time: Duration) {
        self.read_wait_us += u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    }
}

/// States of the slots. The sum of all fields is the number of slots.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Slots that hold nothing.
    pub free: usize,
    /// Slots that hold an expert.
    pub resident: usize,
    /// Slots that an expert is being read into.
    pub reading: usize,
    /// Slots whose memory was lent and never came back (see [`crate::ExpertStore::lend_buffers`]).
    pub lost: usize,
}
