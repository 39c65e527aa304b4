//! The slots, and the fetching of a layer's experts into them.
//!
//! At most one fetch is under way; it borrows the store. What it needs beyond its borrow lives in
//! the store ([`Fetching`]), in vectors that are used again: after the first few tokens a fetch
//! allocates nothing that stays.

mod ahead;
mod measure;
mod resize;

use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use checkpoint::ExpertTable;
use storage::{AlignedBuf, Completion, CompletionQueue, FileId, ReadRequest, Storage, StorageError, Widened};
use tensor::MatrixView;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::layout::{self, Layout};
use crate::lookahead::Lookahead;
use crate::trace::{TraceHeader, TraceWriter};
use crate::{ExpertId, ExpertsError, PART_NAMES, Policy, PolicyKind};

/// When an expert's checksum is compared, where the container has checksums.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// The first time that an expert is read.
    #[default]
    FirstLoad,
    /// Every time that an expert is read.
    EveryLoad,
}

/// How an [`ExpertStore`] is set up.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Experts that fit into memory, at least 1 unless there are none. More than there are experts are not allocated.
    pub slots: usize,
    /// When checksums are compared.
    pub verify: Verify,
    /// Whether guesses of the next demand may be read behind all that is asked for.
    pub lookahead: bool,
    /// Which expert makes room for another.
    pub policy: PolicyKind,
}

/// What the store has done since it was made or [`ExpertStore::reset_stats`] was called.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStats {
    /// Calls of [`ExpertStore::fetch`] that were accepted.
    pub fetches: u64,
    /// Experts asked for: `hits` + `misses`.
    pub requests: u64,
    /// Experts that were resident when they were asked for.
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
    /// Share of the experts asked for that were resident, 0 if none was asked for.
    pub fn hit_rate(&self) -> f64 {
        if self.requests == 0 { 0.0 } else { self.hits as f64 / self.requests as f64 }
    }
}

/// What the slots are doing. `free + resident + reading` is the number of slots.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Slots that hold nothing.
    pub free: usize,
    /// Slots that hold an expert.
    pub resident: usize,
    /// Slots that an expert is being read into.
    pub reading: usize,
}

/// The experts of a model, some of them in memory.
pub struct ExpertStore {
    layout: Layout,
    storage: Arc<dyn Storage>,
    queue: CompletionQueue,
    verify: Verify,
    policy: Box<dyn Policy>,
    slots: Vec<Slot>,
    /// Slots that hold nothing.
    free: Vec<usize>,
    /// [record]: the slot that holds it, or [`NONE`].
    slot_of: Vec<u32>,
    /// [record]: whether its checksum has been compared.
    verified: Vec<bool>,
    /// [expert]: number of the fetch that listed it last, to find duplicates.
    listed_in: Vec<u64>,
    fetch_number: u64,
    fetching: Fetching,
    lookahead: Lookahead,
    /// Slots that hold a guess for the next demand, or that one is being read into.
    ahead: Vec<usize>,
    /// Reads under way that nobody waits for.
    guesses_reading: usize,
    /// Scratch of `settle_guesses`.
    wanted_tags: Vec<u64>,
    /// [slot]: number of the fetch that used it last.
    used_in: Vec<u64>,
    /// Memory of slots that were given back; its pages are the system's.
    spare: Vec<AlignedBuf>,
    trace: Option<TraceWriter>,
    stats: StoreStats,
}

/// Memory for one expert.
struct Slot {
    /// Empty while it is being read into: the reading owns it then.
    buf: AlignedBuf,
    reads: Widened,
    /// The expert that is in it or being read into it.
    id: Option<ExpertId>,
    /// The expert's position in the list of the fetch that it was last part of.
    index: usize,
    /// In use by the fetch: must not be evicted.
    pinned: bool,
    /// Whether it is being read into.
    reading: bool,
    /// Whether its bytes have not been given out since they landed, so that a checksum may have to be compared first.
    fresh: bool,
}

/// The fetch under way.
#[derive(Default)]
struct Fetching {
    layer: u32,
    /// As given.
    experts: Vec<u32>,
    /// Indices of the experts that were resident, and how many of them were given out.
    resident: Vec<usize>,
    resident_given: usize,
    /// Indices of the experts that were not, and how many of their reads were submitted.
    missing: Vec<usize>,
    missing_submitted: usize,
    /// [slot] of the experts given out last.
    current: Vec<usize>,
    /// Reads under way that the consumer waits for.
    reading: usize,
    /// Of the experts, those whose read had been begun as a guess.
    joined: usize,
    /// When the first read was submitted, to tell what the drive takes.
    submitted_at: Option<Instant>,
    failed: bool,
}

const NONE: u32 = u32::MAX;

impl ExpertStore {
    /// A store over the experts that `table` describes; `files` are the table's files as `storage`
    /// knows them. Allocates the slots; memory is taken by the system as they are first filled.
    ///
    /// # Errors
    /// What does not fit together in table and files, naming file, offset, expected and got; no
    /// slots; no memory.
    pub fn new(
        table: ExpertTable,
        files: &[FileId],
        storage: Arc<dyn Storage>,
        options: StoreOptions,
    ) -> Result<Self, ExpertsError> {
        Self::with_policy(table, files, storage, options, |slots| options.policy.new_policy(slots))
    }

    /// [`ExpertStore::new`] with a policy of the caller's; it is told the number of slots.
    ///
    /// # Errors
    /// As [`ExpertStore::new`].
    pub fn with_policy(
        table: ExpertTable,
        files: &[FileId],
        storage: Arc<dyn Storage>,
        options: StoreOptions,
        policy: impl FnOnce(usize) -> Box<dyn Policy>,
    ) -> Result<Self, ExpertsError> {
        let layout = Layout::new(table, files, storage.as_ref())?;
        // NONE is no slot's number: there are no more slots than experts, and fewer of those.
        let slot_count = options.slots.min(layout.record_count);
        if slot_count == 0 && layout.record_count > 0 {
            return Err(ExpertsError::NoSlots);
        }
        let bufs = AlignedBuf::many(slot_count, layout.slot_bytes)
            .map_err(|source| ExpertsError::Storage { source })?;
        let slots = bufs.into_iter().map(Slot::new).collect();
        Ok(ExpertStore {
            queue: CompletionQueue::new(),
            verify: options.verify,
            policy: policy(slot_count),
            slots,
            free: (0..slot_count).rev().collect(),
            lookahead: Lookahead::new(
                layout.layers.len(),
                options.lookahead && slot_count < layout.record_count,
            ),
            ahead: Vec::new(),
            guesses_reading: 0,
            wanted_tags: Vec::new(),
            used_in: vec![0; slot_count],
            spare: Vec::new(),
            trace: None,
            slot_of: vec![NONE; layout.record_count],
            verified: vec![false; layout.record_count],
            listed_in: vec![0; layout.experts_max],
            fetch_number: 0,
            fetching: Fetching::default(),
            stats: StoreStats::default(),
            layout,
            storage,
        })
    }

    /// Memory of one slot in bytes: the largest expert of the table, widened to blocks.
    ///
    /// # Errors
    /// If an expert is too large to address.
    pub fn slot_bytes(table: &ExpertTable, block_bytes: usize) -> Result<usize, ExpertsError> {
        layout::slot_bytes(table, block_bytes)
    }

    /// Starts fetching these experts of a layer: all reads are submitted now, as slots allow. Each
    /// expert must be listed once. With fewer slots than experts the rest is read as the consumer
    /// goes on.
    ///
    /// # Errors
    /// A layer or expert that does not exist, or one listed twice; nothing is fetched then.
    pub fn fetch(&mut self, layer: u32, experts: &[u32]) -> Result<Fetch<'_>, ExpertsError> {
        self.fetch_for(1, layer, experts)
    }

    /// [`ExpertStore::fetch`] that tells the trace how many tokens the experts are for.
    ///
    /// # Errors
    /// As [`ExpertStore::fetch`]; [`ExpertsError::Trace`] if the trace cannot be written, which ends it.
    pub fn fetch_for(
        &mut self,
        tokens: usize,
        layer: u32,
        experts: &[u32],
    ) -> Result<Fetch<'_>, ExpertsError> {
        // Nothing to do unless a fetch was leaked instead of dropped.
        self.settle();
        self.check_list(layer, experts)?;
        self.trace_fetch(tokens, layer, experts)?;
        let fetching = &mut self.fetching;
        fetching.layer = layer;
        fetching.experts.clear();
        fetching.experts.extend_from_slice(experts);
        fetching.resident.clear();
        fetching.resident_given = 0;
        fetching.missing.clear();
        fetching.missing_submitted = 0;
        fetching.joined = 0;
        fetching.failed = false;
        fetching.submitted_at = None;
        let (listed_in, number) = (&self.listed_in, self.fetch_number);
        self.lookahead.judge(layer, |expert| listed_in.get(expert as usize) == Some(&number));
        self.settle_guesses(layer);
        let fetching = &mut self.fetching;
        for (index, &expert) in experts.iter().enumerate() {
            let id = ExpertId { layer, expert };
            let slot_number = self.slot_of[self.layout.record(id)];
            if let Some(&slot_index) = self.ahead.iter().find(|slot| self.slots[**slot].id == Some(id)) {
                // A guess that is still being read: it is demanded from now on.
                let slot = &mut self.slots[slot_index];
                slot.pinned = true;
                slot.index = index;
                self.policy.touch(slot_index, id);
                fetching.reading += 1;
                fetching.joined += 1;
                self.guesses_reading -= 1;
            } else if slot_number == NONE {
                fetching.missing.push(index);
            } else {
                let slot_index = slot_number as usize;
                self.slots[slot_index].pinned = true;
                self.slots[slot_index].index = index;
                self.policy.touch(slot_index, id);
                self.used_in[slot_index] = self.fetch_number;
                fetching.resident.push(slot_index);
            }
        }
        let (slots, number) = (&self.slots, self.fetch_number);
        self.ahead.retain(|slot| {
            let joined = slots[*slot].pinned;
            if joined {
                self.used_in[*slot] = number;
            }
            !joined
        });
        self.stats.fetches += 1;
        self.stats.requests += experts.len() as u64;
        self.stats.hits += fetching.resident.len() as u64;
        self.stats.misses += (fetching.missing.len() + fetching.joined) as u64;
        let fetch = Fetch { store: self };
        // An error from here on drops the fetch, which settles what was submitted before it.
        fetch.store.submit_reads()?;
        Ok(fetch)
    }

    /// Records every fetch from now on in a new file (docs/trace-format.md).
    ///
    /// # Errors
    /// [`ExpertsError::Trace`] if it cannot be written.
    pub fn trace_to(&mut self, path: &Path) -> Result<(), ExpertsError> {
        let header = TraceHeader {
            layers: self.layout.layers.len() as u32, // Layers are numbered in 32 bits.
            slots: self.slots.len() as u32,          // Fewer than NONE.
            slot_bytes: self.layout.slot_bytes as u64,
            experts: self.layout.record_count as u64,
        };
        self.trace =
            Some(TraceWriter::create(path, header).map_err(|source| ExpertsError::Trace { source })?);
        Ok(())
    }

    /// Writes what is left of the trace.
    ///
    /// # Errors
    /// [`ExpertsError::Trace`] if it cannot be written.
    pub fn flush_trace(&mut self) -> Result<(), ExpertsError> {
        let flushed = self.trace.as_mut().map_or(Ok(()), TraceWriter::flush);
        flushed.map_err(|source| ExpertsError::Trace { source })
    }

    fn trace_fetch(&mut self, tokens: usize, layer: u32, experts: &[u32]) -> Result<(), ExpertsError> {
        let Some(trace) = &mut self.trace else { return Ok(()) };
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        if let Err(source) = trace.record(layer, tokens, experts) {
            self.trace = None; // The request fails and says why; the next one works, without a trace.
            return Err(ExpertsError::Trace { source });
        }
        Ok(())
    }

    /// Sets the statistics to 0.
    pub fn reset_stats(&mut self) {
        self.stats = StoreStats::default();
    }

    /// Statistics.
    pub fn stats(&self) -> &StoreStats {
        &self.stats
    }

    /// Routed experts of all layers together.
    pub fn expert_count(&self) -> usize {
        self.layout.record_count
    }

    /// Routed experts of one layer, 0 for a layer without any or beyond the last.
    pub fn layer_expert_count(&self, layer: u32) -> usize {
        self.layout.layers.get(layer as usize).map_or(0, |layer| layer.experts.extents.len())
    }

    /// Slots.
    pub fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// Memory of all slots in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.slots.len() * self.layout.slot_bytes // All of it was allocated.
    }

    /// Whether an expert's bytes are in memory.
    pub fn is_resident(&self, id: ExpertId) -> bool {
        let exists = (id.expert as usize) < self.layer_expert_count(id.layer);
        exists && self.slot_of[self.layout.record(id)] != NONE
    }

    /// What the slots are doing. Counts them, so not for every token.
    pub fn occupancy(&self) -> Occupancy {
        let resident = self.slot_of.iter().filter(|slot| **slot != NONE).count();
        Occupancy { free: self.free.len(), resident, reading: self.fetching.reading + self.guesses_reading }
    }

    fn check_list(&mut self, layer: u32, experts: &[u32]) -> Result<(), ExpertsError> {
        let layers = self.layout.layers.len();
        if layer as usize >= layers {
            return Err(ExpertsError::NoSuchLayer { layer, layers });
        }
        let count = self.layer_expert_count(layer);
        self.fetch_number += 1;
        for &expert in experts {
            if expert as usize >= count {
                return Err(ExpertsError::NoSuchExpert { layer, expert, experts: count });
            }
            let listed_in = &mut self.listed_in[expert as usize];
            if mem::replace(listed_in, self.fetch_number) == self.fetch_number {
                return Err(ExpertsError::Duplicate { layer, expert });
            }
        }
        Ok(())
    }

    /// Submits reads of missing experts, in the order given, until all are submitted or no slot is
    /// to be had.
    fn submit_reads(&mut self) -> Result<(), ExpertsError> {
        while self.fetching.missing_submitted < self.fetching.missing.len() {
            let Some(slot_index) = self.empty_slot() else { return Ok(()) };
            let index = self.fetching.missing[self.fetching.missing_submitted];
            let id = ExpertId { layer: self.fetching.layer, expert: self.fetching.experts[index] };
            let slot = &mut self.slots[slot_index];
            if let Err(error) = self.layout.reads(id, &mut slot.reads) {
                self.free.push(slot_index);
                return Err(error);
            }
            slot.index = index;
            slot.pinned = true;
            self.used_in[slot_index] = self.fetch_number;
            self.fetching.missing_submitted += 1;
            self.fetching.reading += 1;
            self.fetching.submitted_at.get_or_insert_with(Instant::now);
            self.policy.insert(slot_index, id);
            let request = self.request(slot_index, id);
            self.storage.submit(request, &self.queue);
        }
        Ok(())
    }

    /// The read of an expert into an empty slot whose `reads` are laid out.
    fn request(&mut self, slot_index: usize, id: ExpertId) -> ReadRequest {
        let slot = &mut self.slots[slot_index];
        slot.id = Some(id);
        slot.reading = true;
        ReadRequest {
            tag: slot_index as u64,
            buf: mem::replace(&mut slot.buf, AlignedBuf::empty()),
            segments: mem::take(&mut slot.reads.segments),
        }
    }

    /// A slot that holds nothing: a free one, or the policy's victim emptied. None if all are in
    /// use.
    fn empty_slot(&mut self) -> Option<usize> {
        if let Some(slot_index) = self.free.pop() {
            return Some(slot_index);
        }
        let slots = &self.slots;
        let slot_index = self.policy.victim(&|slot| slots[slot].pinned || slots[slot].reading)?;
        debug_assert!(!slots[slot_index].pinned);
        self.vacate(slot_index);
        self.stats.evictions += 1;
        Some(slot_index)
    }

    /// Forgets what is in a slot. The caller puts it to use or among the free ones.
    fn vacate(&mut self, slot_index: usize) {
        self.policy.remove(slot_index);
        let slot = &mut self.slots[slot_index];
        slot.pinned = false;
        if let Some(id) = slot.id.take() {
            self.slot_of[self.layout.record(id)] = NONE;
        }
    }

    /// Takes a finished read back into its slot: the slot's number, or, with the slot free again,
    /// the error.
    fn land(&mut self, completion: Completion) -> Result<usize, ExpertsError> {
        let Completion { tag, buf, segments, result, bytes_read, .. } = completion;
        let slot_index = tag as usize; // From a usize, in `submit_reads`.
        let slot = &mut self.slots[slot_index];
        slot.buf = buf;
        slot.reads.segments = segments;
        slot.reading = false;
        // A guess that nobody asked for is not pinned; everything else is waited for.
        match slot.pinned {
            true => self.fetching.reading -= 1,
            false => self.guesses_reading -= 1,
        }
        self.stats.bytes_read += bytes_read;
        let id = slot.id.expect("a slot that is read into has an expert since submit_reads");
        slot.fresh = true;
        let ExpertId { layer, expert } = id;
        if let Err(source) = result {
            if matches!(source, StorageError::Withdrawn) {
                self.lookahead.withdrawn(bytes_read);
            }
            self.vacate(slot_index);
            self.free.push(slot_index);
            return Err(ExpertsError::Read { layer, expert, source });
        }
        self.slot_of[self.layout.record(id)] = slot_index as u32; // Fewer than NONE slots.
        Ok(slot_index)
    }

    /// Makes an expert that is in memory one of those given out. What was read is verified only now: it takes time, and by
    /// now the fetch's other reads keep the drive busy.
    fn give(&mut self, slot_index: usize) -> Result<(), ExpertsError> {
        if mem::take(&mut self.slots[slot_index].fresh)
            && let Some(id) = self.slots[slot_index].id
            && let Err(error) = self.verify(id, slot_index)
        {
            self.vacate(slot_index);
            self.free.push(slot_index);
            return Err(error);
        }
        self.fetching.current.push(slot_index);
        Ok(())
    }

    /// Compares the checksum of what was read with that of the container, if that is called for.
    fn verify(&mut self, id: ExpertId, slot_index: usize) -> Result<(), ExpertsError> {
        let record = self.layout.record(id);
        let Some(expected) = self.layout.checksum(id) else { return Ok(()) };
        if self.verify == Verify::FirstLoad && self.verified[record] {
            return Ok(());
        }
        let extents = self.layout.extents(id);
        let got = self.slots[slot_index].checksum(extents.iter().map(|extent| extent.bytes));
        self.stats.verifications += 1;
        if got != expected {
            let first = extents.first();
            return Err(ExpertsError::Checksum {
                layer: id.layer,
                expert: id.expert,
                path: first.map(|extent| self.storage.path(self.layout.file(extent))).unwrap_or_default(),
                offset: first.map_or(0, |extent| extent.offset),
                expected,
                got,
            });
        }
        self.verified[record] = true;
        Ok(())
    }

    /// Puts the slots of the next experts that are ready, at most `max`, into `fetching.current`; none when all were given.
    fn next_slots(&mut self, max: usize) -> Result<(), ExpertsError> {
        let layer = self.fetching.layer;
        if self.fetching.failed {
            return Err(ExpertsError::FetchFailed { layer });
        }
        self.unpin_current();
        self.submit_reads()?;
        let fetching = &self.fetching;
        if fetching.resident_given < fetching.resident.len() {
            let given = max.min(fetching.resident.len() - fetching.resident_given);
            for _ in 0..given {
                let slot_index = self.fetching.resident[self.fetching.resident_given];
                self.fetching.resident_given += 1;
                self.give(slot_index)?;
            }
        } else if fetching.reading > 0 {
            self.land_ready(max)?;
        } else if fetching.missing_submitted < fetching.missing.len() && self.guesses_reading > 0 {
            // Guesses have taken every slot: the first that lands makes room.
            let completion = self.wait();
            let _ = self.land(completion);
            return self.next_slots(max);
        } else if fetching.missing_submitted < fetching.missing.len() {
            return Err(ExpertsError::NoVictim { layer });
        }
        Ok(())
    }

    fn unpin_current(&mut self) {
        for slot_index in self.fetching.current.drain(..) {
            self.slots[slot_index].pinned = false;
        }
    }

    /// The next demanded expert that lands, and what has landed besides, at most `max` in all, becomes current. Only while
    /// demanded reads are under way.
    fn land_ready(&mut self, max: usize) -> Result<(), ExpertsError> {
        let first = self.land_wanted()?;
        self.give(first)?;
        while self.fetching.current.len() < max && self.fetching.reading > 0 {
            let Some(completion) = self.queue.try_next() else { break };
            if let Some(landed) = self.land_one(completion) {
                self.give(landed?)?;
            }
        }
        Ok(())
    }

    /// The slot of the next demanded expert that lands; guesses that land meanwhile are dealt with. Only while
    /// demanded reads are under way.
    fn land_wanted(&mut self) -> Result<usize, ExpertsError> {
        loop {
            let completion = self.wait();
            if let Some(landed) = self.land_one(completion) {
                return landed;
            }
        }
    }

    /// Lands a read; None if it was a guess. The error of a guess is nobody's; if the expert is asked for, its read says so
    /// again.
    fn land_one(&mut self, completion: Completion) -> Option<Result<usize, ExpertsError>> {
        let pinned = self.slots[completion.tag as usize].pinned;
        if pinned && matches!(completion.result, Err(StorageError::Withdrawn)) {
            self.read_again(completion);
            return None;
        }
        let landed = self.land(completion);
        pinned.then(|| {
            self.time_reads();
            landed
        })
    }

    /// Reads an expert after all that was asked for while its guess was being given up.
    fn read_again(&mut self, completion: Completion) {
        let Completion { tag, buf, segments, bytes_read, .. } = completion;
        self.stats.bytes_read += bytes_read;
        self.storage.submit(ReadRequest { tag, buf, segments }, &self.queue);
    }

    /// Tells the lookahead what the drive takes for a read, once the last of a fetch's reads has landed.
    fn time_reads(&mut self) {
        let all_submitted = self.fetching.missing_submitted == self.fetching.missing.len();
        if self.fetching.reading > 0 || !all_submitted {
            return;
        }
        if let Some(submitted_at) = self.fetching.submitted_at.take() {
            let busy_us = submitted_at.elapsed().as_micros() as f32;
            self.lookahead.drive_took(self.fetching.missing.len(), busy_us);
        }
    }

    /// The next completion. Only while reads are under way.
    fn wait(&mut self) -> Completion {
        if let Some(completion) = self.queue.try_next() {
            return completion;
        }
        let started = Instant::now();
        let completion = self.queue.wait();
        let wait_us = started.elapsed().as_micros();
        self.stats.read_wait_us += u64::try_from(wait_us).unwrap_or(u64::MAX);
        completion
    }

    /// Ends the fetch under way: takes back every read and unpins every slot. Experts that landed
    /// well stay resident; the error of one that did not is nobody's any more.
    fn settle(&mut self) {
        while self.fetching.reading > 0 {
            if let Ok(slot_index) = self.land_wanted() {
                self.slots[slot_index].pinned = false;
            }
        }
        self.unpin_current();
        for &slot_index in &self.fetching.resident[self.fetching.resident_given..] {
            self.slots[slot_index].pinned = false;
        }
        self.fetching.resident.clear();
        self.fetching.resident_given = 0;
    }

    /// The matrices in a slot that holds an expert.
    fn matrices(&self, slot_index: usize) -> Result<[MatrixView<'_>; 3], ExpertsError> {
        let slot = &self.slots[slot_index];
        let layer = &self.layout.layers[self.fetching.layer as usize];
        let matrix = |which: usize| {
            let part = &layer.experts.parts[which];
            let start = slot.reads.starts[part.extent] + part.offset as usize; // Fits into the slot.
            let bytes = &slot.buf[start..start + layer.part_bytes[which]];
            MatrixView::new(part.format, part.rows, part.cols, bytes).map_err(|source| {
                let layer = self.fetching.layer as usize;
                ExpertsError::BadPart { layer, part: PART_NAMES[which], source }
            })
        };
        Ok([matrix(0)?, matrix(1)?, matrix(2)?])
    }
}

impl Slot {
    fn new(buf: AlignedBuf) -> Self {
        Slot {
            buf,
            reads: Widened::default(),
            id: None,
            index: 0,
            pinned: false,
            reading: false,
            fresh: false,
        }
    }

    /// XXH3-64 of the extents of these lengths, one after the other.
    fn checksum(&self, lengths: impl Iterator<Item = u64>) -> u64 {
        let extent = |(start, bytes): (&usize, u64)| &self.buf[*start..*start + bytes as usize];
        let mut extents = self.reads.starts.iter().zip(lengths).map(extent);
        match (extents.next(), extents.next()) {
            (Some(only), None) => xxh3_64(only),
            (first, second) => {
                let mut hash = Xxh3::new();
                first.into_iter().chain(second).chain(extents).for_each(|bytes| hash.update(bytes));
                hash.digest()
            }
        }
    }
}

/// The fetching of some experts of one layer. Dropping it midway waits for the reads under way and
/// keeps what they brought.
pub struct Fetch<'a> {
    store: &'a mut ExpertStore,
}

/// An expert in memory.
pub struct LoadedExpert<'a> {
    /// Position in the list that was given to `fetch`.
    pub index: usize,
    /// Number in its layer.
    pub expert: u32,
    /// Gate, up, down.
    pub parts: [MatrixView<'a>; 3],
}

impl Fetch<'_> {
    /// The next expert that is ready: resident ones first (in the order given), then each as it
    /// lands. None when all were given. The previously returned expert's slot may be reused from
    /// this call on.
    ///
    /// # Errors
    /// [`ExpertsError::Read`] or [`ExpertsError::Checksum`] for an expert that could not be read.
    /// The fetch has failed then: it gives nothing more. The store stays usable.
    #[expect(clippy::should_implement_trait, reason = "what it gives borrows from self")]
    pub fn next(&mut self) -> Result<Option<LoadedExpert<'_>>, ExpertsError> {
        Ok(self.next_batch(1)?.pop())
    }

    /// The next experts that are ready, at most `max`: resident ones first (in the order given), then what has landed, at
    /// least one. None when all were given. The slots of the previously returned experts may be reused from this call on.
    ///
    /// # Errors
    /// As [`Fetch::next`].
    pub fn next_batch(&mut self, max: usize) -> Result<Vec<LoadedExpert<'_>>, ExpertsError> {
        if let Err(error) = self.store.next_slots(max.max(1)) {
            self.store.fetching.failed = true;
            return Err(error);
        }
        let (store, fetching) = (&*self.store, &self.store.fetching);
        let loaded = |&slot_index: &usize| {
            let parts = store.matrices(slot_index)?;
            let index = store.slots[slot_index].index;
            Ok(LoadedExpert { index, expert: fetching.experts[index], parts })
        };
        fetching.current.iter().map(loaded).collect()
    }

    /// Experts that were asked for.
    pub fn len(&self) -> usize {
        self.store.fetching.experts.len()
    }

    /// Whether no expert was asked for.
    pub fn is_empty(&self) -> bool {
        self.store.fetching.experts.is_empty()
    }

    /// How many of those that were resident have not been given yet: while there are any, [`Fetch::next_batch`] does not wait.
    pub fn resident_left(&self) -> usize {
        self.store.fetching.resident.len() - self.store.fetching.resident_given
    }

    /// [`ExpertStore::wants_guess`], while this fetch is under way.
    pub fn wants_guess(&mut self, tokens: usize) -> bool {
        self.store.wants_guess(tokens)
    }

    /// [`ExpertStore::read_ahead`], while this fetch is under way: what it asked for is read first.
    ///
    /// # Errors
    /// As [`ExpertStore::read_ahead`].
    pub fn read_ahead(
        &mut self,
        tokens: usize,
        layer: u32,
        experts: &[u32],
        cost_us: f32,
    ) -> Result<(), ExpertsError> {
        self.store.guess(tokens, layer, experts, cost_us)
    }

    /// How many of them were resident when they were asked for.
    pub fn resident_count(&self) -> usize {
        self.store.fetching.resident.len()
    }
}

impl Drop for Fetch<'_> {
    fn drop(&mut self) {
        self.store.settle();
    }
}
