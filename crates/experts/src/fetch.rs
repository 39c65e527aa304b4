//! The fetch of one demand: its hits, its misses and the experts that are given out.
//!
//! At most one fetch is under way. Its lists are used again, so that after the first few passes a
//! fetch allocates nothing.

use std::sync::Arc;
use std::time::Instant;

use storage::{Completion, StorageError};

use crate::loader::{Landed, Loader};
use crate::lookahead::Lookahead;
use crate::slots::{Hold, Place};
use crate::{Demand, ExpertId, ExpertsError, Failed, Used};

/// The fetch under way.
#[derive(Default)]
pub(crate) struct Fetch {
    layer: u32,
    /// Number of the demand; the first is 1.
    number: u64,
    /// As demanded.
    experts: Vec<u32>,
    /// [experts]
    used: Vec<Used>,
    /// Slots of the experts that were resident, and how many of them were given out.
    resident: Vec<u32>,
    resident_given: usize,
    /// Positions of the experts that were not, and how many of their reads were submitted.
    missing: Vec<u32>,
    missing_submitted: usize,
    /// Slots given out last.
    current: Vec<u32>,
    /// Reads under way that the consumer waits for.
    reading: usize,
    /// When the first read was submitted, to tell how long the drive takes.
    submitted_at: Option<Instant>,
    failed: Vec<Failed>,
}

impl Fetch {
    /// Number of the last demand.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn layer(&self) -> u32 {
        self.layer
    }

    /// Experts of the last demand.
    pub(crate) fn experts(&self) -> &[u32] {
        &self.experts
    }

    /// Slots given out last.
    pub(crate) fn current(&self) -> &[u32] {
        &self.current
    }

    /// Experts that are not to be had, so far.
    pub(crate) fn failed(&self) -> &[Failed] {
        &self.failed
    }

    /// Resident experts that have not been given out.
    pub(crate) fn resident_left(&self) -> usize {
        self.resident.len() - self.resident_given
    }

    /// Whether reads wait for a slot.
    pub(crate) fn is_short_of_slots(&self) -> bool {
        self.missing_submitted < self.missing.len()
    }

    /// Whether experts are still to be given out.
    pub(crate) fn is_under_way(&self) -> bool {
        self.resident_left() > 0 || self.reading > 0 || self.is_short_of_slots()
    }

    /// Starts the fetch of a demand whose list was checked, while no other is under way: holds the experts
    /// that are there or on their way, and submits the reads of the others as slots allow.
    pub(crate) fn start(&mut self, demand: &Demand<'_>, loader: &mut Loader) {
        debug_assert!(!self.is_under_way() && self.current.is_empty());
        self.layer = demand.layer;
        self.number += 1;
        self.experts.clear();
        self.experts.extend_from_slice(demand.experts);
        self.used.clear();
        self.used.extend((0..demand.experts.len()).map(|position| demand.used(position)));
        self.resident.clear();
        self.resident_given = 0;
        self.missing.clear();
        self.missing_submitted = 0;
        self.failed.clear();
        self.submitted_at = None;
        for (position, &expert) in (0u32..).zip(demand.experts) {
            match loader.slots.place(ExpertId { layer: demand.layer, expert }) {
                Place::Host(slot) => {
                    loader.slots.hold(slot, self.hold(position));
                    self.resident.push(slot);
                }
                // A prefetch that is still being read: it is demanded from now on.
                Place::Reading(slot) => {
                    loader.slots.hold(slot, self.hold(position));
                    self.reading += 1;
                }
                // A device that holds an expert is asked before the host is.
                Place::Disk | Place::Device(_) => self.missing.push(position),
            }
        }
        loader.stats.demanded(self.resident.len(), self.missing.len() + self.reading);
        self.submit_reads(loader);
    }

    fn hold(&self, position: u32) -> Hold {
        Hold { position, demand: self.number, used: self.used[position as usize] }
    }

    /// Submits reads of missing experts, in the order demanded, until all are submitted or no slot
    /// is to be had.
    fn submit_reads(&mut self, loader: &mut Loader) {
        while let Some(&position) = self.missing.get(self.missing_submitted) {
            let Some(empty) = loader.empty_slot() else { return };
            self.missing_submitted += 1;
            let id = ExpertId { layer: self.layer, expert: self.experts[position as usize] };
            match loader.read(empty, id, Some(self.hold(position))) {
                Ok(_) => {
                    self.reading += 1;
                    self.submitted_at.get_or_insert_with(Instant::now);
                }
                Err(error) => self.fail(id.expert, error),
            }
        }
    }

    /// Gives out the next experts that are ready, at most `max`: resident ones first, in the order demanded,
    /// then those that have landed. Those given out before are released. If none is ready it waits
    /// for one, or gives out none if it shall not `wait`.
    pub(crate) fn next_batch(
        &mut self,
        max: usize,
        wait: bool,
        loader: &mut Loader,
        lookahead: &mut Lookahead,
    ) {
        self.release_current(loader);
        let resident_only = self.resident_left() > 0;
        while self.current.is_empty() && self.is_under_way() {
            self.submit_reads(loader);
            if self.resident_left() > 0 {
                let end = self.resident.len().min(self.resident_given + max);
                for given in self.resident_given..end {
                    self.give(self.resident[given], loader);
                }
                self.resident_given = end;
            } else if loader.slots.reading() > 0 {
                // Reads of this demand, or prefetches that have taken every slot: then the first that
                // lands makes room.
                let completion = if wait { Some(loader.wait()) } else { loader.try_next() };
                let Some(completion) = completion else { return };
                self.land_and_give(completion, loader, lookahead);
            } else {
                self.give_up(loader);
            }
        }
        while !resident_only && self.reading > 0 && (1..max).contains(&self.current.len()) {
            let Some(completion) = loader.try_next() else { break };
            self.land_and_give(completion, loader, lookahead);
        }
    }

    /// Ends the fetch: takes back every demand read and releases every slot. Experts that landed
    /// stay resident; the error of one that did not is dropped.
    pub(crate) fn end(&mut self, loader: &mut Loader, lookahead: &mut Lookahead) {
        while self.reading > 0 {
            let completion = loader.wait();
            if let Some(slot) = self.land(completion, loader, lookahead) {
                loader.slots.release(slot);
            }
        }
        self.release_current(loader);
        self.resident[self.resident_given..].iter().for_each(|slot| loader.slots.release(*slot));
        self.resident_given = self.resident.len();
        self.missing_submitted = self.missing.len();
    }

    fn release_current(&mut self, loader: &mut Loader) {
        self.current.drain(..).for_each(|slot| loader.slots.release(slot));
    }

    fn land_and_give(&mut self, completion: Completion, loader: &mut Loader, lookahead: &mut Lookahead) {
        if let Some(slot) = self.land(completion, loader, lookahead) {
            self.give(slot, loader);
        }
    }

    /// Lands a read: the slot of a demanded expert that is there now.
    fn land(
        &mut self,
        completion: Completion,
        loader: &mut Loader,
        lookahead: &mut Lookahead,
    ) -> Option<u32> {
        let is_demanded = loader.slots.holder(completion.tag as u32).is_some();
        if is_demanded && matches!(completion.result, Err(StorageError::Withdrawn)) {
            loader.read_again(completion);
            return None;
        }
        let landed = loader.land(completion);
        if !is_demanded {
            lookahead.landed(&landed);
            return None;
        }
        self.reading -= 1;
        self.time_reads(lookahead);
        let Landed { slot, id: ExpertId { layer, expert }, outcome, .. } = landed;
        match outcome {
            Ok(()) => Some(slot),
            Err(source) => {
                self.fail(expert, ExpertsError::Read { layer, expert, source });
                None
            }
        }
    }

    /// Makes an expert that is in memory one of those given out.
    fn give(&mut self, slot: u32, loader: &mut Loader) {
        let Some(position) = loader.slots.holder(slot) else { return };
        match loader.verify(slot) {
            Ok(()) => self.current.push(slot),
            Err(error) => self.fail(self.experts[position as usize], error),
        }
    }

    fn fail(&mut self, expert: u32, error: ExpertsError) {
        self.failed.push(Failed { expert, error: Arc::new(error) });
    }

    /// No slot can be had and none will come free: the policy names no victim.
    fn give_up(&mut self, loader: &Loader) {
        debug_assert_eq!(loader.slots.reading(), 0);
        for &position in &self.missing[self.missing_submitted..] {
            let error = Arc::new(ExpertsError::NoVictim { layer: self.layer });
            self.failed.push(Failed { expert: self.experts[position as usize], error });
        }
        self.missing_submitted = self.missing.len();
    }

    /// Tells the lookahead how long the drive takes for a read, once the last of a fetch's reads has
    /// landed.
    fn time_reads(&mut self, lookahead: &mut Lookahead) {
        if self.reading > 0 || self.is_short_of_slots() {
            return;
        }
        if let Some(submitted_at) = self.submitted_at.take() {
            let busy_us = submitted_at.elapsed().as_micros() as f32;
            lookahead.drive_took(self.missing.len(), busy_us);
        }
    }
}
