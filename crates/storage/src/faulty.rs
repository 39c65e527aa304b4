//! The storage that fails: real reads with seeded faults and delays.
//!
//! Each submitted request draws its fate (fails, falls short, dawdles) from one seeded generator at
//! the time of submission, so a run is reproducible from its seed and its order of submission,
//! however the threads then interleave. A failed request overwrites the buffer with rubbish:
//! whoever computes with it although the read failed gets a wrong answer and not, by luck, the
//! right one.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::random::SplitMix64;
use crate::{
    AlignedBuf, Completion, CompletionQueue, FileId, IoEngine, IoMode, ReadRequest, Segment, Storage,
    StorageError,
};

/// What is wrong with a read.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum FaultKind {
    /// The operating system says input/output error.
    #[default]
    Eio,
    /// The file ends in the middle of the read.
    Short,
    /// One bit is wrong and nobody says so. Only a checksum finds it.
    FlippedBit,
}

/// How a [`FaultyStorage`] fails. The default fails nothing.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// Of the generator that every decision comes from.
    pub seed: u64,
    /// Of 1000 requests, how many get an input/output error.
    pub eio_per_mille: u32,
    /// Of 1000 requests, how many are short.
    pub short_per_mille: u32,
    /// Each completion is delayed by 0 to this many microseconds after submission, so they overtake
    /// each other.
    pub latency_us_max: u64,
    /// The demand read with this number fails with `kind`, whatever the rates say. Demand reads are those of
    /// [`Storage::submit`], counted from 0 while the storage is not calm: somebody waits for each of
    /// them, whereas a prefetch may fail without anybody noticing.
    pub fail_nth_demand: Option<u64>,
    /// How it fails.
    pub kind: FaultKind,
}

/// The fault-injecting twin of a storage. See [`FaultPlan`].
pub struct FaultyStorage {
    inner: Arc<dyn Storage>,
    plan: FaultPlan,
    calm: AtomicBool,
    shared: Arc<Shared>,
    pump: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    /// Where the inner storage completes; the pump passes it on.
    queue: CompletionQueue,
}

struct State {
    random: SplitMix64,
    /// Requests submitted so far, which is also the next one's tag at the inner storage.
    submitted: u64,
    /// Demand reads submitted so far while not calm.
    demanded: u64,
    under_way: HashMap<u64, Fate>,
}

/// What was decided about a request when it was submitted.
struct Fate {
    tag: u64,
    queue: CompletionQueue,
    submitted: Instant,
    due: Instant,
    fault: Option<Fault>,
}

/// A fault of one segment.
struct Fault {
    kind: FaultKind,
    segment: Segment,
    path: PathBuf,
    /// Bytes of the segment that come before the fault; less than its length.
    got: usize,
}

/// Tells the pump to finish what is under way and end.
const STOP_TAG: u64 = u64::MAX;

/// What a failed read leaves in the buffer.
const RUBBISH: u8 = 0xEE;

impl FaultyStorage {
    /// A twin of `inner` that fails as `plan` says.
    ///
    /// # Errors
    /// [`StorageError::Spawn`] if its thread cannot be started.
    pub fn new(inner: Arc<dyn Storage>, plan: FaultPlan) -> Result<Arc<Self>, StorageError> {
        let state = State {
            random: SplitMix64::new(plan.seed),
            submitted: 0,
            demanded: 0,
            under_way: HashMap::new(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), queue: CompletionQueue::new() });
        let pump = thread::Builder::new()
            .name("storage-faults".into())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.pump(plan.seed)
            })
            .map_err(|source| StorageError::Spawn { source })?;
        let calm = AtomicBool::new(false);
        Ok(Arc::new(FaultyStorage { inner, plan, calm, shared, pump: Some(pump) }))
    }

    /// The seed, to be printed when a test fails.
    pub fn seed(&self) -> u64 {
        self.plan.seed
    }

    /// Requests submitted so far.
    pub fn reads(&self) -> u64 {
        self.shared.lock().submitted
    }

    /// Demand reads submitted so far while not calm: what [`FaultPlan::fail_nth_demand`] counts.
    pub fn demand_reads(&self) -> u64 {
        self.shared.lock().demanded
    }

    /// Stops (or resumes) failing; delays go on. The generator is drawn from all the same.
    pub fn set_calm(&self, calm: bool) {
        self.calm.store(calm, Ordering::Relaxed);
    }

    /// The request to the inner storage, with its fate decided.
    fn decided(&self, request: ReadRequest, queue: &CompletionQueue, is_demand: bool) -> ReadRequest {
        let (number, fate) = self.decide(&request, queue, is_demand);
        self.shared.lock().under_way.insert(number, fate);
        ReadRequest { tag: number, ..request }
    }

    /// Decides about a request: its number, and what will become of it.
    fn decide(&self, request: &ReadRequest, queue: &CompletionQueue, is_demand: bool) -> (u64, Fate) {
        let is_calm = self.calm.load(Ordering::Relaxed);
        let mut state = self.shared.lock();
        let number = state.submitted;
        state.submitted += 1;
        let demand = (is_demand && !is_calm).then_some(state.demanded);
        state.demanded += u64::from(demand.is_some());
        // Always the same number of draws, so that one decision does not shift the others.
        let roll = state.random.below(1000);
        let delay = state.random.below(self.plan.latency_us_max.saturating_add(1));
        let (which, place) = (state.random.next_u64(), state.random.next_u64());
        drop(state);
        let eio_below = u64::from(self.plan.eio_per_mille);
        let short_below = eio_below + u64::from(self.plan.short_per_mille);
        let kind = match self.plan.fail_nth_demand {
            _ if is_calm => None,
            Some(nth) if Some(nth) == demand => Some(self.plan.kind),
            _ if roll < eio_below => Some(FaultKind::Eio),
            _ if roll < short_below => Some(FaultKind::Short),
            _ => None,
        };
        let segment = below(which, request.segments.len()).map(|index| request.segments[index]);
        // A request without bytes has nothing that could fail.
        let fault = kind.zip(segment).and_then(|(kind, segment)| {
            let got = below(place, segment.bytes)?;
            Some(Fault { kind, segment, path: self.inner.path(segment.file), got })
        });
        let submitted = Instant::now();
        let due = submitted + Duration::from_micros(delay);
        (number, Fate { tag: request.tag, queue: queue.clone(), submitted, due, fault })
    }
}

/// A draw scaled to 0..limit; None if that is empty.
fn below(draw: u64, limit: usize) -> Option<usize> {
    usize::try_from(draw.checked_rem(limit as u64)?).ok()
}

impl Drop for FaultyStorage {
    fn drop(&mut self) {
        self.shared.queue.push(Completion {
            tag: STOP_TAG,
            buf: AlignedBuf::empty(),
            segments: Vec::new(),
            result: Ok(()),
            bytes_read: 0,
            wait_us: 0,
        });
        if let Some(pump) = self.pump.take() {
            let _ = pump.join();
        }
    }
}

impl Storage for FaultyStorage {
    fn open(&self, path: &Path) -> Result<FileId, StorageError> {
        self.inner.open(path)
    }

    fn path(&self, file: FileId) -> PathBuf {
        self.inner.path(file)
    }

    fn len_bytes(&self, file: FileId) -> Result<u64, StorageError> {
        self.inner.len_bytes(file)
    }

    fn mode(&self, file: FileId) -> IoMode {
        self.inner.mode(file)
    }

    fn fallback_reason(&self) -> Option<String> {
        self.inner.fallback_reason()
    }

    fn engine(&self) -> IoEngine {
        self.inner.engine()
    }

    fn engine_fallback(&self) -> Option<String> {
        self.inner.engine_fallback()
    }

    fn submit(&self, request: ReadRequest, queue: &CompletionQueue) {
        let request = self.decided(request, queue, true);
        self.inner.submit(request, &self.shared.queue);
    }

    fn submit_ahead(&self, request: ReadRequest, queue: &CompletionQueue) {
        let request = self.decided(request, queue, false);
        self.inner.submit_ahead(request, &self.shared.queue);
    }

    /// Decides about the reads of every consumer at once, unlike the storage that it stands for:
    /// those of other queues are wanted from then on.
    fn settle_ahead(&self, queue: &CompletionQueue, wanted: &[u64]) {
        let state = self.shared.lock();
        let is_wanted = |fate: &Fate| !fate.queue.is(queue) || wanted.contains(&fate.tag);
        let numbers = state.under_way.iter().filter(|(_, fate)| is_wanted(fate)).map(|(number, _)| *number);
        let numbers: Vec<u64> = numbers.collect();
        drop(state);
        self.inner.settle_ahead(&self.shared.queue, &numbers);
    }

    fn bytes_read(&self) -> u64 {
        self.inner.bytes_read()
    }

    fn busy_us(&self) -> u64 {
        self.inner.busy_us()
    }
}

impl Shared {
    /// Takes completions of the inner storage, spoils those that are fated to fail, and delivers
    /// each when it is due.
    fn pump(&self, seed: u64) {
        let mut due_first: BinaryHeap<Reverse<(Instant, u64)>> = BinaryHeap::new();
        let mut held: HashMap<u64, (Completion, Fate)> = HashMap::new();
        let mut stopping = false;
        while !(stopping && held.is_empty() && self.lock().under_way.is_empty()) {
            let arrived = match due_first.peek() {
                None => Some(self.queue.wait()),
                Some(Reverse((due, _))) => {
                    self.queue.wait_timeout(due.saturating_duration_since(Instant::now()))
                }
            };
            if let Some(mut completion) = arrived {
                let number = completion.tag;
                if let Some(mut fate) = self.lock().under_way.remove(&number) {
                    if let Some(fault) = fate.fault.take() {
                        fault.apply(&mut completion, number, seed);
                    }
                    due_first.push(Reverse((fate.due, number)));
                    held.insert(number, (completion, fate));
                } else {
                    stopping |= number == STOP_TAG;
                }
            }
            let now = Instant::now();
            while let Some(&Reverse((due, number))) = due_first.peek()
                && due <= now
            {
                due_first.pop();
                if let Some((completion, fate)) = held.remove(&number) {
                    fate.deliver(completion);
                }
            }
        }
    }

    // Every change under this lock is a single step.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fate {
    fn deliver(self, mut completion: Completion) {
        completion.tag = self.tag;
        let wait_us = self.submitted.elapsed().as_micros();
        completion.wait_us = u64::try_from(wait_us).unwrap_or(u64::MAX);
        self.queue.push(completion);
    }
}

impl Fault {
    /// Makes a read that went well one that did not.
    fn apply(self, completion: &mut Completion, number: u64, seed: u64) {
        if completion.result.is_err() {
            return;
        }
        let Fault { kind, segment, path, got } = self;
        let Segment { offset, bytes: expected, buf_offset, .. } = segment;
        let target = &mut completion.buf[buf_offset..buf_offset + expected];
        match kind {
            FaultKind::Eio => {
                target.fill(RUBBISH);
                let source =
                    io::Error::other(format!("injected input/output error (seed {seed}, read {number})"));
                completion.result = Err(StorageError::Read { path, offset, expected, source });
            }
            FaultKind::Short => {
                target[got..].fill(RUBBISH);
                completion.result = Err(StorageError::ShortRead { path, offset, expected, got });
            }
            FaultKind::FlippedBit => target[got] ^= 1 << (number % 8),
        }
    }
}
