//! The host's slots and the reads that fill them: requests, landing, verification.

use std::sync::Arc;
use std::time::Instant;

use storage::{AlignedBuf, Completion, CompletionQueue, ReadRequest, Storage, StorageError};
use tensor::MatrixView;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::layout::Layout;
use crate::slots::{EmptySlot, Hold, Slots, State};
use crate::stats::StoreStats;
use crate::{ExpertId, ExpertsError, Policy};

/// When an expert's checksum is compared, where the container has checksums.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// The first time that an expert is read.
    #[default]
    FirstLoad,
    /// Every time that an expert is read.
    EveryLoad,
}

/// Slots, and a loader that fills them from the drive.
pub(crate) struct Loader {
    pub(crate) layout: Layout,
    pub(crate) slots: Slots,
    pub(crate) stats: StoreStats,
    storage: Arc<dyn Storage>,
    queue: CompletionQueue,
    verify: Verify,
    /// [record]: whether its checksum has been compared.
    verified: Vec<bool>,
}

/// A read that has ended.
pub(crate) struct Landed {
    pub(crate) slot: u32,
    pub(crate) id: ExpertId,
    /// Bytes that the drive delivered for it.
    pub(crate) bytes_read: u64,
    /// An error leaves the slot free.
    pub(crate) outcome: Result<(), StorageError>,
}

impl Loader {
    pub(crate) fn new(
        layout: Layout,
        bufs: Vec<AlignedBuf>,
        policy: Box<dyn Policy>,
        storage: Arc<dyn Storage>,
        verify: Verify,
    ) -> Self {
        Loader {
            slots: Slots::new(bufs, layout.numbering.clone(), policy),
            stats: StoreStats::default(),
            storage,
            queue: CompletionQueue::new(),
            verify,
            verified: vec![false; layout.record_count()],
            layout,
        }
    }

    /// A free slot, or else the policy's victim emptied. None if all are in use.
    pub(crate) fn empty_slot(&mut self) -> Option<EmptySlot> {
        self.empty_slot_but(&|_| false)
    }

    /// [`Loader::empty_slot`] that evicts no expert which was used in a demand later than number `recent`.
    pub(crate) fn empty_old_slot(&mut self, recent: u64) -> Option<EmptySlot> {
        self.empty_slot_but(&|used_in| used_in > recent)
    }

    fn empty_slot_but(&mut self, kept: &dyn Fn(u64) -> bool) -> Option<EmptySlot> {
        if let Some(empty) = self.slots.take_free() {
            return Some(empty);
        }
        let empty = self.slots.evict(&|slot| kept(slot.used_in()))?;
        self.stats.evictions += 1;
        Some(empty)
    }

    /// Starts reading an expert into an empty slot for position `holder.0` of demand number
    /// `holder.1`, or as a prefetch if there is no holder. Returns the slot's number.
    ///
    /// # Errors
    /// The expert's extents cannot be read into memory; the slot is free again.
    pub(crate) fn read(
        &mut self,
        empty: EmptySlot,
        id: ExpertId,
        holder: Option<Hold>,
    ) -> Result<u32, ExpertsError> {
        if let Err(error) = self.layout.reads(id, self.slots.reads_mut(&empty)) {
            self.slots.put_back(empty);
            return Err(error);
        }
        let request = self.slots.begin_read(empty, id, holder);
        let slot = request.tag as u32; // The number of a slot.
        match holder {
            Some(_) => self.storage.submit(request, &self.queue),
            None => self.storage.submit_ahead(request, &self.queue),
        }
        Ok(slot)
    }

    /// Reads an expert again, after all that was demanded while its prefetch was being cancelled.
    pub(crate) fn read_again(&mut self, completion: Completion) {
        let Completion { tag, buf, segments, bytes_read, .. } = completion;
        self.stats.bytes_read += bytes_read;
        self.storage.submit(ReadRequest { tag, buf, segments }, &self.queue);
    }

    /// Promotes prefetches into the slots named by `wanted` to demand reads, and cancels the others
    /// as far as they are not under way.
    pub(crate) fn settle_ahead(&self, wanted: &[u64]) {
        self.storage.settle_ahead(&self.queue, wanted);
    }

    /// The next completion if there is one already.
    pub(crate) fn try_next(&self) -> Option<Completion> {
        self.queue.try_next()
    }

    /// The next completion. Only while reads are under way.
    pub(crate) fn wait(&mut self) -> Completion {
        assert!(self.slots.reading() > 0, "waiting although nothing is being read");
        if let Some(completion) = self.queue.try_next() {
            return completion;
        }
        let started = Instant::now();
        let completion = self.queue.wait();
        self.stats.waited(started.elapsed());
        completion
    }

    /// Takes the memory of a finished read back into its slot.
    pub(crate) fn land(&mut self, completion: Completion) -> Landed {
        let Completion { tag, buf, segments, result, bytes_read, .. } = completion;
        let slot = tag as u32; // The number of a slot, from `read`.
        self.stats.bytes_read += bytes_read;
        let id = self.slots.end_read(slot, buf, segments, result.is_err());
        Landed { slot, id, bytes_read, outcome: result }
    }

    /// Makes the expert in a slot fit for use. The bytes of one that has just landed are compared with the
    /// container's checksum, if that is called for: only now, because it takes time, and by now
    /// the other reads of the demand keep the drive busy.
    ///
    /// # Errors
    /// The checksum differs; the slot is free then.
    pub(crate) fn verify(&mut self, slot: u32) -> Result<(), ExpertsError> {
        let State::Fresh(id) = self.slots.state(slot) else { return Ok(()) };
        if let Err(error) = self.compare(id, slot) {
            self.slots.vacate(slot);
            return Err(error);
        }
        self.slots.verified(slot);
        Ok(())
    }

    fn compare(&mut self, id: ExpertId, slot: u32) -> Result<(), ExpertsError> {
        let record = self.layout.numbering.record(id);
        let Some(expected) = self.layout.checksum(id) else { return Ok(()) };
        if self.verify == Verify::FirstLoad && self.verified[record] {
            return Ok(());
        }
        let extents = self.layout.extents(id);
        let lengths = extents.iter().map(|extent| extent.bytes);
        let got = checksum(self.slots.get(slot).extents(lengths));
        self.stats.verifications += 1;
        if got != expected {
            let first = extents.first();
            let path = first.map(|extent| self.storage.path(self.layout.file(extent)));
            return Err(ExpertsError::Checksum {
                layer: id.layer,
                expert: id.expert,
                path: path.unwrap_or_default(),
                offset: first.map_or(0, |extent| extent.offset),
                expected,
                got,
            });
        }
        self.verified[record] = true;
        Ok(())
    }

    /// The matrices of the expert in a slot, which is one of `layer`.
    pub(crate) fn matrices(&self, layer: u32, slot: u32) -> [MatrixView<'_>; 3] {
        let layer = &self.layout.layers[layer as usize];
        let slot = self.slots.get(slot);
        [0, 1, 2].map(|which| {
            let part = &layer.experts.parts[which];
            let bytes = slot.part(part.extent, part.offset, layer.part_bytes[which]);
            // The layout has checked that format, shape and length agree.
            MatrixView { format: part.format, rows: part.rows, cols: part.cols, bytes }
        })
    }
}

/// XXH3-64 of some bytes, one piece after the other.
fn checksum<'a>(mut pieces: impl Iterator<Item = &'a [u8]>) -> u64 {
    match (pieces.next(), pieces.next()) {
        (Some(only), None) => xxh3_64(only),
        (first, second) => {
            let mut hash = Xxh3::new();
            first.into_iter().chain(second).chain(pieces).for_each(|bytes| hash.update(bytes));
            hash.digest()
        }
    }
}
