//! One ring of io_uring without a thread of its own: whoever submits starts the reads, whoever
//! waits ends them.
//!
//! A read that a thread has to be woken for begins when that thread gets a processor, and all of
//! them may be computing. Here [`Uring::submit`] makes the system call that starts the reads.
//! [`CompletionQueue::wait`] finds the ring as its driver and sleeps in the kernel until a read is
//! done. Reads beyond the ring's depth, and what is left of a short read, start when the next
//! waiter looks. What that gains: docs/experiments/2026-11-io-engines.md.
//!
//! Several threads may submit and wait. Entries are put in and taken out under one lock; one of the
//! waiters sleeps in the kernel, the others wait for it to come back, since it may bring what they
//! wait for.
//!
//! Files are registered with the ring at their first read. Buffers are not: registering them takes
//! their memory at once and holds it, against the memory contract, to save at most 3 ms of
//! processor time a GB when slots lie in huge pages (docs/experiments/2026-11-io-engines.md).
//!
//! The kernel writes to memory that the entries of the ring point to. An [`Op`] owns that memory
//! and is kept in the table until its completion has come, whatever happens; the drop of [`Ring`]
//! waits for them.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use io_uring::squeue::Entry;
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, opcode, types};

use crate::job::{Job, Queued, Task, Urgency};
use crate::queue::{Driven, Driver};
use crate::reading::{Access, Reading, bounce_buf};
use crate::{AlignedBuf, CompletionQueue, StorageError};

/// Handles that can be registered with the ring; those of later files are looked up by the kernel
/// at each read.
const REGISTERED_MAX: u32 = 1024;

/// How long to wait before asking again when the kernel refuses to take or give anything.
const RETRY_PAUSE: Duration = Duration::from_millis(1);

/// A ring that those who wait drive.
pub(crate) struct Uring {
    ring: Arc<Ring>,
    as_driver: Weak<dyn Driver>,
}

/// The ring and what is in it.
struct Ring {
    /// Entries are put in and taken out by whoever holds the lock of `state`.
    uring: IoUring,
    state: Mutex<State>,
    /// A waiter has come back from the kernel.
    turned: Condvar,
    bytes_read: AtomicU64,
}

struct State {
    queued: Queued,
    /// [number]: an op whose completion has not come.
    ops: Vec<Option<Op>>,
    free: Vec<usize>,
    in_flight: usize,
    /// [2 * file + direct]: whether the handle is registered; None before its first use.
    registered: Vec<Option<bool>>,
    /// Entries that did not fit into the submission queue.
    unsent: VecDeque<Entry>,
    /// A waiter is in the kernel.
    waiting: bool,
}

/// A read in the ring: the task and, unless its piece is the area, the bounce buffer.
struct Op {
    reading: Reading,
    bounce: AlignedBuf,
    task: Task,
}

impl Uring {
    /// Sets the ring up for so many reads in flight.
    ///
    /// # Errors
    /// What the kernel said: it is too old, the ring is forbidden, there are too few descriptors.
    pub(crate) fn new(depth: usize) -> io::Result<Self> {
        let ring = Arc::new(Ring::new(depth)?);
        let as_driver: Arc<dyn Driver> = ring.clone();
        Ok(Uring { ring, as_driver: Arc::downgrade(&as_driver) })
    }

    /// Starts the tasks that `plan` makes of the job, or fails the job and starts none.
    pub(crate) fn submit(
        &self,
        job: &Arc<Job>,
        urgency: Urgency,
        plan: impl FnOnce(&Arc<Job>, &mut VecDeque<Task>) -> Result<(), StorageError>,
        queue: &CompletionQueue,
    ) {
        queue.attach(&self.as_driver);
        let mut state = self.ring.lock();
        if state.queued.add(job, urgency, plan) > 0 {
            self.start(state, queue);
        }
    }

    /// See [`Queued::settle_ahead`].
    pub(crate) fn settle_ahead(&self, queue: &CompletionQueue, wanted: &[u64]) {
        let mut state = self.ring.lock();
        let (moved, given_up) = state.queued.settle_ahead(queue, wanted);
        match moved {
            0 => drop(state),
            _ => self.start(state, queue),
        }
        given_up.into_iter().for_each(Task::withdraw);
    }

    /// Starts what may begin, and has the consumer drive it.
    fn start(&self, mut state: MutexGuard<'_, State>, queue: &CompletionQueue) {
        self.ring.start_queued(&mut state);
        self.ring.send(&mut state);
        drop(state);
        queue.poke();
    }

    pub(crate) fn bytes_read(&self) -> u64 {
        self.ring.bytes_read.load(Ordering::Relaxed)
    }

    pub(crate) fn busy(&self) -> Duration {
        self.ring.lock().queued.busy()
    }
}

impl Driver for Ring {
    fn poll(&self) {
        self.turn(&mut self.lock());
    }

    fn drive(&self, ready: &dyn Fn() -> bool, deadline: Option<Instant>) -> Driven {
        let mut state = self.lock();
        loop {
            self.turn(&mut state);
            if ready() {
                return Driven::Ready;
            }
            if state.in_flight == 0 {
                return Driven::Idle;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Driven::TimedOut;
            }
            if state.waiting {
                state = self.wait_for_waiter(state, left);
                continue;
            }
            state.waiting = true;
            drop(state);
            self.wait_in_kernel(left);
            state = self.lock();
            state.waiting = false;
            self.turned.notify_all();
        }
    }
}

impl Op {
    fn new(task: Task) -> Result<Self, (Task, io::Error)> {
        let reading = Reading::new(&task);
        match reading.bounce_bytes().map(bounce_buf).transpose() {
            Ok(bounce) => Ok(Op { reading, bounce: bounce.unwrap_or_else(AlignedBuf::empty), task }),
            Err(error) => Err((task, error)),
        }
    }

    /// The memory that is read into. Only its address is used while the kernel has it.
    fn area(&mut self) -> &mut [u8] {
        match self.reading.bounce_bytes() {
            Some(_) => &mut self.bounce,
            None => &mut self.task.piece,
        }
    }
}

impl Ring {
    fn new(depth: usize) -> io::Result<Self> {
        // The depth is bounded by THREADS_MAX.
        let entries = u32::try_from(depth).unwrap_or(u32::MAX).next_power_of_two();
        let uring = IoUring::new(entries)?;
        let mut probe = Probe::new();
        uring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::Read::CODE) || !uring.params().is_feature_ext_arg() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel is too old"));
        }
        // A filter may allow the set-up and forbid the use.
        uring.submit()?;
        let table = uring.submitter().register_files_sparse(REGISTERED_MAX).is_ok();
        let state = State {
            queued: Queued::new(),
            ops: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            in_flight: 0,
            registered: vec![None; if table { REGISTERED_MAX as usize } else { 0 }],
            unsent: VecDeque::new(),
            waiting: false,
        };
        Ok(Ring { uring, state: Mutex::new(state), turned: Condvar::new(), bytes_read: AtomicU64::new(0) })
    }

    // Nothing under this lock leaves the state half changed when it panics.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deals with what is done and starts what there is room for.
    fn turn(&self, state: &mut State) {
        // A waiter that is about to sleep in the kernel would not learn of what is taken from under it.
        if !state.waiting {
            self.reap(state);
        }
        self.start_queued(state);
        self.send(state);
    }

    fn start_queued(&self, state: &mut State) {
        while state.in_flight < state.ops.len()
            && let Some(task) = state.queued.next()
        {
            match Op::new(task) {
                Ok(op) => {
                    let number = state.free.pop().expect("free has as many numbers as ops has room");
                    state.in_flight += 1;
                    self.proceed(state, number, op);
                }
                Err((task, error)) => {
                    state.queued.task_done();
                    let error = task.file.read_error(task.offset, task.expected, error);
                    task.finish(Err(error));
                }
            }
        }
    }

    /// Puts the next read of an op into the ring, or finishes the op.
    fn proceed(&self, state: &mut State, number: usize, mut op: Op) {
        let Some(Access { direct, offset, range }) = op.reading.next() else {
            self.finish(state, number, op, Ok(()));
            return;
        };
        // At most the area; the kernel reads no more than this at once anyway, and the rest comes next.
        let bytes = u32::try_from(range.len()).unwrap_or(1 << 30);
        let target = op.area()[range].as_mut_ptr();
        let entry = match self.registered_slot(state, &op, direct) {
            Some(slot) => opcode::Read::new(types::Fixed(slot), target, bytes).offset(offset).build(),
            None => {
                let handle = types::Fd(op.task.file.handle(direct).as_raw_fd());
                opcode::Read::new(handle, target, bytes).offset(offset).build()
            }
        };
        // A read through the page cache would be copied by whoever submits it: let the kernel's
        // workers do it.
        let entry = if direct { entry } else { entry.flags(io_uring::squeue::Flags::ASYNC) };
        state.ops[number] = Some(op);
        state.unsent.push_back(entry.user_data(number as u64));
    }

    /// Where the handle is registered, registering it if it is new.
    fn registered_slot(&self, state: &mut State, op: &Op, direct: bool) -> Option<u32> {
        let place = 2 * op.task.file.index() + usize::from(direct);
        let slot = u32::try_from(place).ok()?;
        let known = state.registered.get_mut(place)?;
        let submitter = self.uring.submitter();
        let handle = op.task.file.handle(direct).as_raw_fd();
        let is_registered =
            *known.get_or_insert_with(|| matches!(submitter.register_files_update(slot, &[handle]), Ok(1)));
        is_registered.then_some(slot)
    }

    fn finish(&self, state: &mut State, number: usize, mut op: Op, result: io::Result<()>) {
        state.ops[number] = None;
        state.free.push(number);
        state.in_flight -= 1;
        let result = op.reading.finish(result, &mut op.task, &op.bounce);
        if let Ok(bytes) = result {
            self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
        }
        state.queued.task_done();
        op.task.finish(result);
    }

    /// Hands new entries to the kernel. What it does not take now it is offered again at the next turn.
    fn send(&self, state: &mut State) {
        if state.unsent.is_empty() {
            return;
        }
        // SAFETY: the only other user of the submission queue is another call of this, under the same lock.
        let mut entries = unsafe { self.uring.submission_shared() };
        while let Some(entry) = state.unsent.front() {
            // SAFETY: a read's memory and file belong to an op in `ops`, which stays there until
            // the completion with its number has come (`reap` alone takes it out; `drop` waits).
            match unsafe { entries.push(entry) } {
                Ok(()) => drop(state.unsent.pop_front()),
                Err(_) => break,
            }
        }
        drop(entries);
        let _ = self.uring.submit();
    }

    /// Sleeps until something is done or the time is over. Without the lock.
    fn wait_in_kernel(&self, left: Option<Duration>) {
        let submitter = self.uring.submitter();
        let result = match left {
            None => submitter.submit_and_wait(1),
            Some(left) => submitter.submit_with_args(1, &SubmitArgs::new().timespec(&Timespec::from(left))),
        };
        match result {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::TIME.raw_os_error()) => {}
            // EAGAIN or EBUSY: short of memory, or completions have to be taken first. There is no
            // other error that a ring which works could give; if there is, what is in flight still
            // completes.
            Err(_) => thread::sleep(RETRY_PAUSE),
        }
    }

    /// Waits until the waiter that is in the kernel has come back.
    fn wait_for_waiter<'a>(
        &self,
        state: MutexGuard<'a, State>,
        left: Option<Duration>,
    ) -> MutexGuard<'a, State> {
        match left {
            None => self.turned.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(left) => self.turned.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
        }
    }

    /// The tag and result of something that is done.
    fn next_done(&self, _state: &mut State) -> Option<(u64, i32)> {
        // SAFETY: the only other user of the completion queue is another call of this, under the
        // lock that `_state` stands for.
        let done = unsafe { self.uring.completion_shared() }.next()?;
        Some((done.user_data(), done.result()))
    }

    fn reap(&self, state: &mut State) {
        while let Some((tag, result)) = self.next_done(state) {
            let number = tag as usize; // From `proceed`.
            let Some(mut op) = state.ops.get_mut(number).and_then(Option::take) else {
                debug_assert!(false, "a completion without an op");
                continue;
            };
            let result = usize::try_from(result).map_err(|_| read_error(-result));
            match op.reading.took(result) {
                Ok(()) => self.proceed(state, number, op),
                Err(error) => self.finish(state, number, op, Err(error)),
            }
        }
    }
}

/// What a read's negative result means. The kernel cancels what a thread has submitted when that
/// thread ends: the read is to be tried again, by another.
fn read_error(code: i32) -> io::Error {
    match code == rustix::io::Errno::CANCELED.raw_os_error() {
        true => io::ErrorKind::Interrupted.into(),
        false => io::Error::from_raw_os_error(code),
    }
}

impl Drop for Ring {
    /// Ends with nothing in flight: the memory must not go before the kernel is done with it. What
    /// had not been started completes as closed.
    fn drop(&mut self) {
        let mut state = mem::replace(&mut *self.lock(), State::closed());
        while state.ops.iter().any(Option::is_some) {
            self.send(&mut state);
            self.wait_in_kernel(None);
            while let Some((tag, _)) = self.next_done(&mut state) {
                if let Some(op) = state.ops.get_mut(tag as usize) {
                    *op = None;
                }
            }
        }
    }
}

impl State {
    /// Of a ring that is gone.
    fn closed() -> Self {
        State {
            queued: Queued::new(),
            ops: Vec::new(),
            free: Vec::new(),
            in_flight: 0,
            registered: Vec::new(),
            unsent: VecDeque::new(),
            waiting: false,
        }
    }
}
