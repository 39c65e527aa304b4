//! The store: checked demands in, matrices out, one fetch at a time.
//!
//! It puts the parts together: `slots.rs` and `loader.rs` hold and fill memory, `fetch.rs` follows one
//! demand, `prefetch.rs` reads ahead of the next, and trace and statistics look on.

mod measure;
mod resize;

use std::path::Path;
use std::slice;
use std::sync::Arc;
use std::time::Instant;

use checkpoint::ExpertTable;
use storage::{AlignedBuf, FileId, Storage};
use tensor::MatrixView;

use crate::demand::Lists;
use crate::fetch::Fetch;
use crate::layout::{self, Layout};
use crate::loader::{Loader, Verify};
use crate::lookahead::{Lookahead, LookaheadStats};
use crate::prefetch::Prefetch;
use crate::slots::Place;
use crate::stats::{Occupancy, StoreStats};
use crate::trace::{TraceHeader, TraceObserver};
use crate::{Demand, ExpertId, ExpertsError, Failed, Hint, Policy, PolicyKind};

/// How an [`ExpertStore`] is set up.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Experts that fit into memory, at least 1 unless there are none. More than there are experts
    /// are not allocated.
    pub slots: usize,
    /// When checksums are compared.
    pub verify: Verify,
    /// Whether experts of the next demand may be prefetched behind all demand reads.
    pub lookahead: bool,
    /// Which expert makes room for another.
    pub policy: PolicyKind,
}

/// The experts of a model, some of them in memory.
///
/// ```text
/// start(demand); while !next_batch(..).is_empty() { use them }; failures(); end()
/// ```
pub struct ExpertStore {
    loader: Loader,
    fetch: Fetch,
    prefetch: Prefetch,
    lists: Lists,
    trace: TraceObserver,
    /// Scratch of [`ExpertStore::hint`].
    ranked: Vec<u32>,
}

impl ExpertStore {
    /// A store over the experts that `table` describes; `files` are the table's files as `storage`
    /// knows them. Allocates the slots; memory is taken by the system as they are first filled.
    ///
    /// # Errors
    /// Table and files do not fit together, which names file, offset, expected and got; no slots; no
    /// memory.
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
        let slot_count = options.slots.min(layout.record_count());
        if slot_count == 0 && layout.record_count() > 0 {
            return Err(ExpertsError::NoSlots);
        }
        let bufs = AlignedBuf::many(slot_count, layout.slot_bytes)
            .map_err(|source| ExpertsError::Storage { source })?;
        let lookahead_pays = options.lookahead && slot_count < layout.record_count();
        let lookahead = Lookahead::new(layout.layers.len(), lookahead_pays);
        Ok(ExpertStore {
            fetch: Fetch::default(),
            prefetch: Prefetch::new(lookahead, layout.moe_layer_count()),
            lists: Lists::new(&layout),
            trace: TraceObserver::default(),
            ranked: Vec::new(),
            loader: Loader::new(layout, bufs, policy(slot_count), storage, options.verify),
        })
    }

    /// Memory of one slot in bytes: the largest expert of the table, widened to blocks.
    ///
    /// # Errors
    /// If an expert is too large to address.
    pub fn slot_bytes(table: &ExpertTable, block_bytes: usize) -> Result<usize, ExpertsError> {
        layout::slot_bytes(table, block_bytes)
    }

    /// Starts fetching a layer's experts: all reads are submitted now, as slots allow. With fewer slots
    /// than experts the rest is read as the consumer goes on. Ends the fetch before it.
    ///
    /// # Errors
    /// A layer or expert that does not exist, or one listed twice; nothing is fetched then. Reads that fail
    /// are no errors of the fetch: see [`ExpertStore::failures`].
    pub fn start(&mut self, demand: &Demand<'_>) -> Result<(), ExpertsError> {
        self.end();
        self.lists.check(&self.loader.layout, demand.layer, demand.experts)?;
        self.trace.demanded(demand);
        let lists = &self.lists;
        self.prefetch.settle(demand.layer, |expert| lists.named(expert), &mut self.loader);
        self.fetch.start(demand, &mut self.loader);
        tracing::trace!(
            layer = demand.layer,
            experts = demand.experts.len(),
            resident = self.fetch.resident_left(),
            "fetch"
        );
        self.prefetch.forget_joined(&self.loader);
        Ok(())
    }

    /// The next experts that are ready, at most `max` (at least 1): resident ones first, in the order
    /// demanded, then those that have landed. Waits for the first if none is ready and `wait` is set.
    /// None come when it is not, or when all were given out or have failed
    /// ([`ExpertStore::is_fetching`]). The slots of the experts given out before may be used again
    /// from this call on.
    pub fn next_batch(&mut self, max: usize, wait: bool) -> Ready<'_> {
        let lookahead = &mut self.prefetch.lookahead;
        self.fetch.next_batch(max.max(1), wait, &mut self.loader, lookahead);
        Ready { store: self, slots: self.fetch.current().iter() }
    }

    /// Whether experts of the demand are still to be given out.
    pub fn is_fetching(&self) -> bool {
        self.fetch.is_under_way()
    }

    /// How many resident experts have not been given out: while there are any,
    /// [`ExpertStore::next_batch`] does not wait.
    pub fn resident_left(&self) -> usize {
        self.fetch.resident_left()
    }

    /// The experts of the last demand that are not to be had: their reads failed, or their checksums
    /// differ. Complete when no more are to be given out; kept until the next demand.
    pub fn failures(&self) -> &[Failed] {
        self.fetch.failed()
    }

    /// Ends the fetch: waits for the demand reads under way and keeps the experts that they bring.
    /// Nothing to do when all were given out, but to release the last of them.
    pub fn end(&mut self) {
        self.fetch.end(&mut self.loader, &mut self.prefetch.lookahead);
        if cfg!(debug_assertions) {
            self.loader.slots.assert_consistent();
        }
    }

    /// Prefetches experts that a layer will probably demand, before or while another layer's are fetched. If
    /// a prefetch is of any use, `rank` is called to name them, best first, each once; the time that
    /// it takes is part of what prefetching costs.
    ///
    /// Never waits, never evicts an expert that the last pass used (unless the slots cannot hold
    /// the experts of one pass), and changes no result. See `lookahead.rs` for when it pays.
    ///
    /// # Errors
    /// A layer or expert that does not exist, or one named twice; nothing is read then.
    pub fn hint(&mut self, hint: &Hint, rank: &mut dyn FnMut(&mut Vec<u32>)) -> Result<(), ExpertsError> {
        if !self.prefetch.lookahead.wants_guess(hint.phase) {
            return Ok(());
        }
        let started = Instant::now();
        self.ranked.clear();
        rank(&mut self.ranked);
        self.lists.check(&self.loader.layout, hint.layer, &self.ranked)?;
        if self.ranked.is_empty() {
            return Ok(());
        }
        let cost_us = started.elapsed().as_micros() as f32;
        self.prefetch.read(hint, &self.ranked, cost_us, &mut self.loader, &self.fetch)
    }

    /// Records every demand from now on in a new file (docs/trace-format.md).
    ///
    /// # Errors
    /// [`ExpertsError::Trace`] if it cannot be written.
    pub fn trace_to(&mut self, path: &Path) -> Result<(), ExpertsError> {
        let layout = &self.loader.layout;
        let header = TraceHeader {
            layers: layout.layers.len() as u32, // Layers are numbered in 32 bits.
            slots: self.slot_count() as u32,    // As are slots.
            slot_bytes: layout.slot_bytes as u64,
            experts: layout.record_count() as u64,
        };
        self.trace.start(path, header).map_err(|source| ExpertsError::Trace { source })
    }

    /// Writes the rest of the trace.
    ///
    /// # Errors
    /// [`ExpertsError::Trace`] if it, or an earlier part, could not be written, which ended the trace;
    /// said once.
    pub fn flush_trace(&mut self) -> Result<(), ExpertsError> {
        self.trace.flush().map_err(|source| ExpertsError::Trace { source })
    }

    /// Sets the statistics to 0.
    pub fn reset_stats(&mut self) {
        self.loader.stats = StoreStats::default();
    }

    /// Statistics.
    pub fn stats(&self) -> &StoreStats {
        &self.loader.stats
    }

    /// Statistics of prefetching.
    pub fn lookahead_stats(&self) -> &LookaheadStats {
        &self.prefetch.lookahead.stats
    }

    /// Routed experts of all layers together.
    pub fn expert_count(&self) -> usize {
        self.loader.layout.record_count()
    }

    /// Routed experts of one layer, 0 for a layer without any or beyond the last.
    pub fn layer_expert_count(&self, layer: u32) -> usize {
        self.loader.layout.layer_expert_count(layer)
    }

    /// Slots.
    pub fn slot_count(&self) -> usize {
        self.loader.slots.len()
    }

    /// Memory of all slots in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.slot_count() * self.loader.layout.slot_bytes // All of it was allocated.
    }

    /// Where an expert is; None if there is no such expert.
    pub fn place(&self, id: ExpertId) -> Option<Place> {
        let exists = (id.expert as usize) < self.layer_expert_count(id.layer);
        exists.then(|| self.loader.slots.place(id))
    }

    /// States of the slots. Counts them, so not for every token.
    pub fn occupancy(&self) -> Occupancy {
        let [free, resident, reading, lost] = self.loader.slots.count();
        Occupancy { free, resident, reading, lost }
    }
}

/// An expert in memory.
pub struct LoadedExpert<'a> {
    /// Number in its layer.
    pub expert: u32,
    /// Gate, up, down.
    pub parts: [MatrixView<'a>; 3],
}

/// Experts that were given out together.
#[derive(Clone)]
pub struct Ready<'a> {
    store: &'a ExpertStore,
    slots: slice::Iter<'a, u32>,
}

impl Ready<'_> {
    /// Whether none are left.
    pub fn is_empty(&self) -> bool {
        self.slots.len() == 0
    }
}

impl<'a> Iterator for Ready<'a> {
    type Item = LoadedExpert<'a>;

    fn next(&mut self) -> Option<LoadedExpert<'a>> {
        let (loader, fetch) = (&self.store.loader, &self.store.fetch);
        let slot = *self.slots.next()?;
        let position = loader.slots.holder(slot)?;
        let expert = fetch.experts()[position as usize];
        Some(LoadedExpert { expert, parts: loader.matrices(fetch.layer(), slot) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.slots.size_hint()
    }
}

impl ExactSizeIterator for Ready<'_> {}
