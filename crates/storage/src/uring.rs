//! One ring of io_uring: as many reads in flight as its depth, and one thread for all of them.
//!
//! The thread alone touches the ring, so the kernel needs no locks for it and does its work when the thread
//! asks (`SINGLE_ISSUER`, `DEFER_TASKRUN`), and not by interrupting whoever submitted. A submitter puts tasks
//! into the queue and, when the thread sleeps, wakes it through an event descriptor that the ring watches: one
//! wake-up for a whole set of experts, where a pool needs one for each piece. Each turn of the thread is a single
//! system call that submits what is new and waits for what is done.
//!
//! Files are registered with the ring at their first read. Buffers are not: registering them takes their memory
//! at once and holds it, against the memory contract, to save at most 3 ms of processor time a GB when slots lie
//! in huge pages (docs/experiments/2026-11-io-engines.md).
//!
//! The kernel writes to memory that the entries of the ring point to. An [`Op`] owns that memory and is kept in
//! the table until its completion has come, whatever happens; the drop of [`Ring`] waits for them.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::{IoUring, Probe, opcode, types};
use rustix::event::{EventfdFlags, PollFlags, eventfd};

use crate::job::{Job, Queued, Task};
use crate::reading::{Access, Reading, bounce_buf};
use crate::{AlignedBuf, StorageError};

/// Handles that can be registered with the ring; those of later files are looked up by the kernel at each read.
const REGISTERED_MAX: u32 = 1024;

/// What the completion of the wake-up says instead of the number of an op.
const WAKE: u64 = u64::MAX;

/// How long to wait before asking again when the kernel refuses to take or give anything.
const RETRY_PAUSE: Duration = Duration::from_millis(1);

/// The ring's thread and what it has to do.
pub(crate) struct Uring {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    queued: Mutex<Waiting>,
    /// Written to wake the thread.
    wake: OwnedFd,
    bytes_read: AtomicU64,
}

struct Waiting {
    queued: Queued,
    /// The thread has found nothing to do, and will not look again before it is woken.
    asleep: bool,
}

impl Uring {
    /// Sets the ring up and starts its thread.
    ///
    /// # Errors
    /// What the kernel said: it is too old, the ring is forbidden, there are too few descriptors.
    pub(crate) fn new(depth: usize) -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let waiting = Waiting { queued: Queued::new(), asleep: false };
        let shared = Arc::new(Shared { queued: Mutex::new(waiting), wake, bytes_read: AtomicU64::new(0) });
        let (ready, made) = mpsc::channel();
        let thread = thread::Builder::new().name("storage-ring".into()).spawn({
            let shared = Arc::clone(&shared);
            move || serve(&shared, depth, &ready)
        })?;
        let mut uring = Uring { shared, thread: Some(thread) };
        let set_up = made.recv().unwrap_or_else(|_| Err(io::Error::other("its thread ended")));
        if set_up.is_err() {
            uring.join();
        }
        set_up.map(|()| uring)
    }

    /// Adds the tasks that `plan` makes of the job, or fails the job and adds none.
    pub(crate) fn submit(
        &self,
        job: &Arc<Job>,
        plan: impl FnOnce(&Arc<Job>, &mut VecDeque<Task>) -> Result<(), StorageError>,
    ) {
        let mut waiting = self.shared.lock();
        let added = waiting.queued.add(job, plan);
        let wake = added > 0 && mem::take(&mut waiting.asleep);
        drop(waiting);
        if wake {
            self.shared.wake();
        }
    }

    pub(crate) fn bytes_read(&self) -> u64 {
        self.shared.bytes_read.load(Ordering::Relaxed)
    }

    pub(crate) fn busy(&self) -> Duration {
        self.shared.lock().queued.busy()
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        let abandoned = {
            let mut waiting = self.shared.lock();
            waiting.queued.closed = true;
            mem::take(&mut waiting.queued.tasks)
        };
        drop(abandoned); // Completes their jobs, outside the lock.
        self.shared.wake();
        self.join();
    }
}

impl Shared {
    // Nothing under this lock leaves the state half changed when it panics.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // It can fail only when it has been written 2^64 - 1 times without being read: then it wakes as well.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

/// The life of the ring's thread. The ring is made here, because only the thread that made it may use it.
fn serve(shared: &Shared, depth: usize, ready: &Sender<io::Result<()>>) {
    let mut ring = match Ring::new(depth) {
        Ok(ring) => ring,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let _ = ready.send(Ok(()));
    loop {
        while ring.in_flight < depth {
            let mut waiting = shared.lock();
            let Some(task) = waiting.queued.next() else {
                if waiting.queued.closed && ring.in_flight == 0 {
                    return;
                }
                waiting.asleep = true;
                break;
            };
            drop(waiting);
            ring.start(shared, task);
        }
        ring.watch(&shared.wake);
        ring.turn();
        ring.reap(shared);
    }
}

/// A read in the ring: the task and, unless its piece is the area, the bounce buffer.
struct Op {
    reading: Reading,
    bounce: AlignedBuf,
    task: Task,
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

    fn finish(mut self, shared: &Shared, result: io::Result<()>) {
        let result = self.reading.finish(result, &mut self.task, &self.bounce);
        if let Ok(bytes) = result {
            shared.bytes_read.fetch_add(bytes, Ordering::Relaxed);
        }
        shared.lock().queued.task_done();
        self.task.finish(result);
    }
}

/// The ring and what is in it.
struct Ring {
    ring: IoUring,
    /// [number]: an op whose completion has not come.
    ops: Vec<Option<Op>>,
    free: Vec<usize>,
    in_flight: usize,
    /// [2 * file + direct]: whether the handle is registered; None before its first use.
    registered: Vec<Option<bool>>,
    /// The ring watches the event descriptor.
    watching: bool,
    /// Entries that did not fit into the submission queue.
    unsent: VecDeque<Entry>,
}

impl Ring {
    fn new(depth: usize) -> io::Result<Self> {
        // A place for each read and one for the wake-up. The depth is bounded by THREADS_MAX.
        let entries = u32::try_from(depth + 1).unwrap_or(u32::MAX).next_power_of_two();
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(entries)
            .or_else(|_| IoUring::new(entries))?; // Kernels before 6.1.
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::Read::CODE) || !probe.is_supported(opcode::PollAdd::CODE) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel is too old"));
        }
        // A filter may allow the set-up and forbid the use.
        ring.submit()?;
        let table = ring.submitter().register_files_sparse(REGISTERED_MAX).is_ok();
        let registered = vec![None; if table { REGISTERED_MAX as usize } else { 0 }];
        let ops = (0..depth).map(|_| None).collect();
        let free = (0..depth).rev().collect();
        Ok(Ring { ring, ops, free, in_flight: 0, registered, watching: false, unsent: VecDeque::new() })
    }

    /// Starts a task. Only while fewer than the ring's depth are in flight.
    fn start(&mut self, shared: &Shared, task: Task) {
        match Op::new(task) {
            Ok(op) => {
                let number = self.free.pop().expect("free has depth - in_flight numbers, checked by serve");
                self.in_flight += 1;
                self.proceed(shared, number, op);
            }
            Err((task, error)) => {
                shared.lock().queued.task_done();
                let error = task.file.read_error(task.offset, task.expected, error);
                task.finish(Err(error));
            }
        }
    }

    /// Puts the next read of an op into the ring, or finishes the op.
    fn proceed(&mut self, shared: &Shared, number: usize, mut op: Op) {
        let Some(Access { direct, offset, range }) = op.reading.next() else {
            self.release(number);
            op.finish(shared, Ok(()));
            return;
        };
        // At most the area; the kernel reads no more than this at once anyway, and the rest comes next.
        let bytes = u32::try_from(range.len()).unwrap_or(1 << 30);
        let target = op.area()[range].as_mut_ptr();
        let entry = match self.registered_slot(&op, direct) {
            Some(slot) => opcode::Read::new(types::Fixed(slot), target, bytes).offset(offset).build(),
            None => {
                let handle = types::Fd(op.task.file.handle(direct).as_raw_fd());
                opcode::Read::new(handle, target, bytes).offset(offset).build()
            }
        };
        // A read through the page cache would be copied on this thread, one after the other: let the kernel's
        // workers do it.
        let entry = if direct { entry } else { entry.flags(io_uring::squeue::Flags::ASYNC) };
        self.ops[number] = Some(op);
        self.send(entry.user_data(number as u64));
    }

    /// Where the handle is registered, registering it if it is new.
    fn registered_slot(&mut self, op: &Op, direct: bool) -> Option<u32> {
        let place = 2 * op.task.file.index() + usize::from(direct);
        let slot = u32::try_from(place).ok()?;
        let known = self.registered.get_mut(place)?;
        let submitter = self.ring.submitter();
        let handle = op.task.file.handle(direct).as_raw_fd();
        let is_registered =
            *known.get_or_insert_with(|| matches!(submitter.register_files_update(slot, &[handle]), Ok(1)));
        is_registered.then_some(slot)
    }

    fn release(&mut self, number: usize) {
        self.ops[number] = None;
        self.free.push(number);
        self.in_flight -= 1;
    }

    /// Has the ring say when the event descriptor is written.
    fn watch(&mut self, wake: &OwnedFd) {
        if !mem::replace(&mut self.watching, true) {
            let flags = u32::from(PollFlags::IN.bits());
            let poll = opcode::PollAdd::new(types::Fd(wake.as_raw_fd()), flags).build();
            self.send(poll.user_data(WAKE));
        }
    }

    fn send(&mut self, entry: Entry) {
        self.unsent.push_back(entry);
        self.push_unsent();
    }

    fn push_unsent(&mut self) {
        let mut queue = self.ring.submission();
        while let Some(entry) = self.unsent.front() {
            // SAFETY: a read's memory and file belong to an op in `ops`, which stays there until the completion
            // with its number has come (`reap` alone takes it out; `drop` waits). A poll names no memory, and
            // its descriptor outlives the thread.
            match unsafe { queue.push(entry) } {
                Ok(()) => drop(self.unsent.pop_front()),
                Err(_) => break, // Full: after the next turn.
            }
        }
    }

    /// Submits what is new and waits until something is done.
    fn turn(&mut self) {
        self.push_unsent();
        if let Err(error) = self.ring.submit_and_wait(1)
            && error.kind() != io::ErrorKind::Interrupted
        {
            // EAGAIN or EBUSY: short of memory, or completions have to be taken first. There is no other error
            // that a ring which works could give; if there is, what is in flight still completes.
            thread::sleep(RETRY_PAUSE);
        }
    }

    /// The tag and result of something that is done.
    fn next_done(&mut self) -> Option<(u64, i32)> {
        let done = self.ring.completion().next()?;
        Some((done.user_data(), done.result()))
    }

    fn reap(&mut self, shared: &Shared) {
        while let Some((tag, result)) = self.next_done() {
            if tag == WAKE {
                self.watching = false;
                let mut count = [0; 8];
                let _ = rustix::io::read(&shared.wake, &mut count);
                continue;
            }
            let number = tag as usize; // From `proceed`.
            let Some(mut op) = self.ops.get_mut(number).and_then(Option::take) else {
                debug_assert!(false, "a completion without an op");
                continue;
            };
            let result = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
            match op.reading.took(result) {
                Ok(()) => self.proceed(shared, number, op),
                Err(error) => {
                    self.release(number);
                    op.finish(shared, Err(error));
                }
            }
        }
    }
}

impl Drop for Ring {
    /// Ends with nothing in flight, also when the thread panics: the memory must not go before the kernel is
    /// done with it.
    fn drop(&mut self) {
        while self.ops.iter().any(Option::is_some) {
            self.turn();
            while let Some((tag, _)) = self.next_done() {
                if let Some(op) = self.ops.get_mut(tag as usize) {
                    *op = None;
                }
            }
        }
    }
}
