//! The slots: memory for one expert each, their states, and the place of every expert.
//!
//! ```text
//!            begin_read            landed            verified
//!   Free ───────────────► Reading ────────► Fresh ────────────► Resident
//!    ▲  ▲                    │                │                    │
//!    │  └──── failed ────────┘                │                    │
//!    └──────────────── vacate ────────────────┴────────────────────┘
//! ```
//!
//! Every change of state goes through one function of [`Slots`], which asserts the state before it
//! and tells the policy and the directory of places. A slot that a demand holds is never evicted.

use std::mem;

use storage::{AlignedBuf, ReadRequest, Segment, Widened};

use crate::layout::Numbering;
use crate::{ExpertId, Policy, Used};

/// Where an expert is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this slot of a device's memory. No store has such slots yet.
    Device(u32),
    /// In this slot of the host's memory.
    Host(u32),
    /// On its way from the drive into this slot of the host's memory.
    Reading(u32),
    /// On the drive only.
    Disk,
}

/// State of a slot.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Holds nothing.
    Free,
    /// Its memory is lent to a measurement.
    Lent,
    /// This expert is being read into it; the read owns the memory.
    Reading(ExpertId),
    /// Holds this expert as it landed: the checksum may have to be compared before it is used.
    Fresh(ExpertId),
    /// Holds this expert, which has been given out before.
    Resident(ExpertId),
}

impl State {
    /// The expert in the slot or on its way into it.
    pub(crate) fn id(self) -> Option<ExpertId> {
        match self {
            State::Free | State::Lent => None,
            State::Reading(id) | State::Fresh(id) | State::Resident(id) => Some(id),
        }
    }
}

/// A demand that holds a slot.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Hold {
    /// Position in the demand.
    pub(crate) position: u32,
    /// Number of the demand.
    pub(crate) demand: u64,
    pub(crate) used: Used,
}

/// Memory for one expert.
pub(crate) struct Slot {
    state: State,
    /// Position in the demand that holds the slot.
    holder: Option<u32>,
    /// Number of the demand that used it last.
    used_in: u64,
    /// Empty while it is being read into or lent.
    buf: AlignedBuf,
    reads: Widened,
}

impl Slot {
    fn new(buf: AlignedBuf) -> Self {
        Slot { state: State::Free, holder: None, used_in: 0, buf, reads: Widened::default() }
    }

    /// Number of the demand that used it last.
    pub(crate) fn used_in(&self) -> u64 {
        self.used_in
    }

    /// Whether its contents must stay: a demand holds it, or a read is on its way into it.
    fn is_busy(&self) -> bool {
        self.holder.is_some() || matches!(self.state, State::Reading(_) | State::Lent)
    }

    /// The extents of the expert, each with the given length.
    pub(crate) fn extents(&self, lengths: impl Iterator<Item = u64>) -> impl Iterator<Item = &[u8]> {
        // The layout has checked that each fits into the slot.
        self.reads.starts.iter().zip(lengths).map(|(start, bytes)| &self.buf[*start..*start + bytes as usize])
    }

    /// `bytes` bytes at `offset` of an extent.
    pub(crate) fn part(&self, extent: usize, offset: u64, bytes: usize) -> &[u8] {
        let start = self.reads.starts[extent] + offset as usize; // Fits into the slot.
        &self.buf[start..start + bytes]
    }
}

/// A free slot that was taken off the free list: to be read into, lent or put back.
#[must_use]
#[derive(Debug)]
pub(crate) struct EmptySlot(u32);

/// The slots of the host's memory.
pub(crate) struct Slots {
    slots: Vec<Slot>,
    /// Those in state [`State::Free`], apart from [`EmptySlot`]s.
    free: Vec<u32>,
    /// Slots in state [`State::Reading`].
    reading: usize,
    /// [record]
    places: Vec<Place>,
    numbering: Numbering,
    policy: Box<dyn Policy>,
    /// Memory of slots that were given back; its pages are the system's.
    spare: Vec<AlignedBuf>,
}

impl Slots {
    /// Slots with this memory, all of them free. Their number is below 2^32.
    pub(crate) fn new(bufs: Vec<AlignedBuf>, numbering: Numbering, policy: Box<dyn Policy>) -> Self {
        Slots {
            free: (0..bufs.len() as u32).rev().collect(),
            slots: bufs.into_iter().map(Slot::new).collect(),
            reading: 0,
            places: vec![Place::Disk; numbering.record_count()],
            numbering,
            policy,
            spare: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn get(&self, slot: u32) -> &Slot {
        &self.slots[slot as usize]
    }

    pub(crate) fn state(&self, slot: u32) -> State {
        self.slots[slot as usize].state
    }

    /// Position in the demand that holds a slot.
    pub(crate) fn holder(&self, slot: u32) -> Option<u32> {
        self.slots[slot as usize].holder
    }

    /// How many slots are being read into.
    pub(crate) fn reading(&self) -> usize {
        self.reading
    }

    pub(crate) fn place(&self, id: ExpertId) -> Place {
        self.places[self.numbering.record(id)]
    }

    /// Takes a slot off the free list.
    pub(crate) fn take_free(&mut self) -> Option<EmptySlot> {
        let slot = self.free.pop()?;
        assert_eq!(self.state(slot), State::Free, "slot {slot} is on the free list");
        Some(EmptySlot(slot))
    }

    /// Empties the policy's victim among the slots that are not busy and not among `kept`.
    pub(crate) fn evict(&mut self, kept: &dyn Fn(&Slot) -> bool) -> Option<EmptySlot> {
        let slots = &self.slots;
        let victim = self.policy.victim(&|slot| slots[slot].is_busy() || kept(&slots[slot]))?;
        assert!(!self.slots[victim].is_busy(), "the policy named slot {victim}, which is in use");
        Some(self.empty(victim as u32)) // Fewer than 2^32 slots.
    }

    /// Forgets the expert in a slot, which is free afterwards.
    pub(crate) fn vacate(&mut self, slot: u32) {
        let empty = self.empty(slot);
        self.put_back(empty);
    }

    fn empty(&mut self, slot: u32) -> EmptySlot {
        let number = slot as usize;
        let (State::Fresh(id) | State::Resident(id)) = self.slots[number].state else {
            panic!("slot {slot} is emptied but holds nothing: {:?}", self.slots[number].state)
        };
        self.policy.remove(number);
        self.set_place(id, Place::Disk);
        self.slots[number].state = State::Free;
        self.slots[number].holder = None;
        EmptySlot(slot)
    }

    pub(crate) fn put_back(&mut self, EmptySlot(slot): EmptySlot) {
        self.free.push(slot);
    }

    /// The layout of the next read into an empty slot, to be filled in.
    pub(crate) fn reads_mut(&mut self, empty: &EmptySlot) -> &mut Widened {
        &mut self.slots[empty.0 as usize].reads
    }

    /// Makes the request that reads an expert into a slot, whose reads are laid out. It is held by
    /// `holder`; without one it is a prefetch.
    pub(crate) fn begin_read(
        &mut self,
        EmptySlot(slot): EmptySlot,
        id: ExpertId,
        holder: Option<Hold>,
    ) -> ReadRequest {
        assert_eq!(self.place(id), Place::Disk, "{id:?} is read twice");
        self.set_place(id, Place::Reading(slot));
        self.reading += 1;
        let number = slot as usize;
        match holder {
            Some(Hold { used, .. }) => self.policy.insert(number, id, used),
            None => self.policy.insert_ahead(number, id),
        }
        let slot = &mut self.slots[number];
        assert_eq!(slot.state, State::Free);
        slot.state = State::Reading(id);
        slot.holder = holder.map(|hold| hold.position);
        slot.used_in = holder.map_or(slot.used_in, |hold| hold.demand);
        ReadRequest {
            tag: number as u64,
            buf: mem::replace(&mut slot.buf, AlignedBuf::empty()),
            segments: mem::take(&mut slot.reads.segments),
        }
    }

    /// Takes back the memory of a read that has ended: its expert is in the slot, or, if it
    /// `failed`, the slot is free. Returns the expert.
    pub(crate) fn end_read(
        &mut self,
        slot: u32,
        buf: AlignedBuf,
        segments: Vec<Segment>,
        failed: bool,
    ) -> ExpertId {
        let number = slot as usize;
        let State::Reading(id) = self.slots[number].state else {
            panic!("a read ended in slot {slot}, which is {:?}", self.slots[number].state)
        };
        self.reading -= 1;
        self.slots[number].buf = buf;
        self.slots[number].reads.segments = segments;
        self.slots[number].state = State::Fresh(id);
        self.set_place(id, Place::Host(slot));
        if failed {
            self.vacate(slot);
        }
        id
    }

    /// The expert in a slot is fit for use.
    pub(crate) fn verified(&mut self, slot: u32) {
        let state = &mut self.slots[slot as usize].state;
        let State::Fresh(id) = *state else { panic!("slot {slot} is {state:?}, not fresh") };
        *state = State::Resident(id);
    }

    /// A demand holds a slot from now on.
    pub(crate) fn hold(&mut self, slot: u32, Hold { position, demand, used }: Hold) {
        let number = slot as usize;
        let id = self.slots[number].state.id().expect("a demand holds slots with an expert only");
        assert_eq!(self.slots[number].holder, None, "slot {slot} is held twice");
        self.slots[number].holder = Some(position);
        self.slots[number].used_in = demand;
        self.policy.touch(number, id, used);
    }

    pub(crate) fn release(&mut self, slot: u32) {
        self.slots[slot as usize].holder = None;
    }

    /// Lends the memory of an empty slot.
    pub(crate) fn lend(&mut self, EmptySlot(slot): EmptySlot) -> (u32, AlignedBuf) {
        let number = slot as usize;
        self.slots[number].state = State::Lent;
        (slot, mem::replace(&mut self.slots[number].buf, AlignedBuf::empty()))
    }

    /// Takes memory for a slot whose own was lent.
    pub(crate) fn take_back(&mut self, slot: u32, buf: AlignedBuf) {
        let number = slot as usize;
        assert_eq!(self.slots[number].state, State::Lent);
        self.slots[number].buf = buf;
        self.slots[number].state = State::Free;
        self.free.push(slot);
    }

    /// Slots that are free, hold an expert, are being read into, are lent.
    pub(crate) fn count(&self) -> [usize; 4] {
        let mut counts = [0; 4];
        for slot in &self.slots {
            let kind = match slot.state {
                State::Free => 0,
                State::Fresh(_) | State::Resident(_) => 1,
                State::Reading(_) => 2,
                State::Lent => 3,
            };
            counts[kind] += 1;
        }
        counts
    }

    /// Panics unless slots, free list and places agree. No [`EmptySlot`] may be about.
    pub(crate) fn assert_consistent(&self) {
        let [free, held, reading, _] = self.count();
        assert_eq!((free, reading), (self.free.len(), self.reading), "a slot leaked");
        assert!(self.free.iter().all(|slot| self.state(*slot) == State::Free));
        let placed = self.places.iter().filter(|place| **place != Place::Disk).count();
        assert_eq!(placed, held + reading, "places and slots differ");
        for (number, slot) in self.slots.iter().enumerate() {
            let expected = match slot.state {
                State::Free | State::Lent => continue,
                State::Reading(_) => Place::Reading(number as u32),
                State::Fresh(_) | State::Resident(_) => Place::Host(number as u32),
            };
            assert_eq!(slot.state.id().map(|id| self.place(id)), Some(expected), "slot {number}");
        }
    }

    fn set_place(&mut self, id: ExpertId, place: Place) {
        self.places[self.numbering.record(id)] = place;
    }

    /// Memory that [`Slots::grow`] needs for this many more slots.
    pub(crate) fn bufs_missing(&self, more: usize) -> usize {
        more.saturating_sub(self.spare.len())
    }

    /// Adds `more` slots, with memory from `bufs` and from slots that were given back.
    pub(crate) fn grow(&mut self, more: usize, bufs: Vec<AlignedBuf>) {
        // The last is used first.
        let older = mem::replace(&mut self.spare, bufs);
        self.spare.extend(older);
        assert!(self.spare.len() >= more, "too little memory was brought");
        self.policy.resize(self.slots.len() + more);
        for buf in self.spare.drain(self.spare.len() - more..).rev() {
            self.free.push(self.slots.len() as u32); // Fewer than 2^32 slots.
            self.slots.push(Slot::new(buf));
        }
    }

    /// Removes the slots from number `slots` on, while nothing is read or held. Experts that the policy
    /// would keep move to the slots that stay. Returns how many experts had to go.
    pub(crate) fn shrink(&mut self, slots: usize) -> usize {
        let [_, held, reading, _] = self.count();
        assert_eq!(reading, 0, "reads are under way while the number of slots changes");
        let lost = self.slots[..slots].iter().filter(|slot| slot.state == State::Lent).count();
        let evictions = held.saturating_sub(slots - lost);
        for _ in 0..evictions {
            let Some(empty) = self.evict(&|_| false) else { break };
            self.put_back(empty);
        }
        let mut free_below: Vec<u32> =
            self.free.iter().copied().filter(|slot| (*slot as usize) < slots).collect();
        for from in slots..self.slots.len() {
            let Some(id) = self.slots[from].state.id() else { continue };
            let to = free_below.pop().expect("no more experts than slots are left");
            let (stay, go) = self.slots.split_at_mut(slots);
            let (source, target) = (&mut go[from - slots], &mut stay[to as usize]);
            target.buf.copy_from_slice(&source.buf);
            mem::swap(&mut target.reads, &mut source.reads);
            target.state = mem::replace(&mut source.state, State::Free);
            target.used_in = source.used_in;
            self.policy.relocate(from, to as usize, id);
            self.set_place(id, Place::Host(to));
        }
        for mut slot in self.slots.drain(slots..).rev().filter(|slot| slot.state == State::Free) {
            slot.buf.give_back();
            self.spare.push(slot.buf);
        }
        self.policy.resize(slots);
        let is_free = |slot: &u32| self.slots[*slot as usize].state == State::Free;
        self.free = (0..slots as u32).rev().filter(is_free).collect();
        evictions
    }
}
