//! A fixed set of threads that run one data-parallel job at a time.
//!
//! A job is a number of tasks and a function of the task's index; threads claim indices from one
//! atomic counter, and the caller takes part. Which thread runs a task is left open, so a task must
//! not depend on it: every op gives each output element to exactly one task, with a summation order
//! of its own, and therefore the same bits for any number of threads.
//!
//! A worker *joins* a job (a compare-and-swap on the gate word), works until no index is left, and
//! *leaves*. The caller closes the gate when the indices have run out and waits only for those that
//! joined: a worker that the system has not woken yet, or that lost its core, never holds a job up.
//! Between jobs a worker spins for at most [`SPIN`] and then sleeps, because the ops of one layer
//! follow each other within microseconds.

mod partition;

use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use partition::PerThread;
pub(crate) use partition::{Chunks, Partition, Tile, Tiles};

/// Longest time that an idle thread keeps its core before it sleeps.
const SPIN: Duration = Duration::from_micros(50);
/// Pauses between two looks at the clock while spinning.
const SPIN_PAUSES: usize = 64;
/// More threads than this are not started.
pub const THREADS_MAX: usize = 1024;

/// Gate word: how many workers are inside the job, whether it may be joined, and the job's number.
const JOINED: u64 = (1 << 16) - 1;
const OPEN: u64 = 1 << 16;
const EPOCH: u64 = 1 << 17;

/// Threads created once; see the module's documentation.
pub struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    epoch: u64,
}

/// A job with its type erased. `data` points to a closure on the stack of the caller of `run`.
#[derive(Copy, Clone)]
struct Job {
    data: *const (),
    call: unsafe fn(*const (), usize),
}

/// A value on a cache line of its own.
#[repr(align(64))]
struct Padded<T>(T);

struct Shared {
    gate: Padded<AtomicU64>,
    next_task: Padded<AtomicUsize>,
    job: UnsafeCell<Option<Job>>,
    sleepers: AtomicUsize,
    shutdown: AtomicBool,
    /// Guards nothing but the decision to sleep; `wake` and `done` are signalled under it.
    sleep: Mutex<()>,
    wake: Condvar,
    done: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is the only field that is not already Sync, and its raw pointer the only one not
// Send. It is written by `publish` alone, which has `&mut ThreadPool`, while the gate is closed and
// nobody is joined; it is read only between a join and a leave. The gate's acquire/release
// operations order the two.
unsafe impl Sync for Shared {}
// SAFETY: see above; the pointee is `Sync`, which `run_indexed` demands of its closure.
unsafe impl Send for Shared {}

/// A poisoned lock guards no broken invariant here: a panicking task never holds one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ThreadPool {
    /// A pool of `threads` threads, the caller included (at least 1, at most [`THREADS_MAX`]). If
    /// the system refuses a thread the pool is smaller; [`ThreadPool::threads`] tells.
    pub fn new(threads: usize) -> ThreadPool {
        let shared = Arc::new(Shared {
            gate: Padded(AtomicU64::new(0)),
            next_task: Padded(AtomicUsize::new(0)),
            job: UnsafeCell::new(None),
            sleepers: AtomicUsize::new(0),
            shutdown: AtomicBool::new(false),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            done: Condvar::new(),
            panic: Mutex::new(None),
        });
        let mut workers = Vec::new();
        for worker in 1..threads.clamp(1, THREADS_MAX) {
            let shared = Arc::clone(&shared);
            let name = format!("kernels-{worker}");
            match std::thread::Builder::new().name(name).spawn(move || shared.work(worker)) {
                Ok(handle) => workers.push(handle),
                Err(_) => break,
            }
        }
        ThreadPool { shared, workers, epoch: 0 }
    }

    /// Threads that can take part in a job, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `f(task)` once for each task in `0..tasks`, on any thread, and returns when all are
    /// done. The first panic of a task ends the job early and is raised again here.
    pub fn run<F: Fn(usize) + Sync>(&mut self, tasks: usize, f: F) {
        self.run_indexed(tasks, |_, task| f(task));
    }

    /// Splits `0..len` into ranges of `grain` (the last may be shorter) and calls `f` once for
    /// each.
    pub fn parallel_for<F: Fn(Range<usize>) + Sync>(&mut self, len: usize, grain: usize, f: F) {
        let grain = grain.max(1);
        self.run(len.div_ceil(grain), |task| {
            let start = task * grain;
            f(start..(start + grain).min(len));
        });
    }

    /// Calls `f(index, part)` once for each part of `parts`.
    pub(crate) fn run_parts<P: Partition>(&mut self, parts: P, f: impl Fn(usize, P::Part) + Sync) {
        self.run_indexed(parts.len(), |_, index| {
            // SAFETY: `run_indexed` hands each index below `len` to one call.
            f(index, unsafe { parts.part(index) });
        });
    }

    /// As [`ThreadPool::run_parts`], with scratch that belongs to the calling thread:
    /// `locals[thread]`. What a task leaves there is seen by later tasks of the same thread only,
    /// in no stated order.
    pub(crate) fn run_parts_with<P: Partition, L: Send>(
        &mut self,
        parts: P,
        locals: &mut [L],
        f: impl Fn(usize, P::Part, &mut L) + Sync,
    ) {
        assert!(locals.len() >= self.threads(), "scratch for each of {} threads", self.threads());
        let locals = PerThread::new(locals);
        self.run_indexed(parts.len(), |thread, index| {
            // SAFETY: each index is handed out once, and one thread number is used by one thread at
            // a time.
            let (part, local) = unsafe { (parts.part(index), locals.of_thread(thread)) };
            f(index, part, local);
        });
    }

    /// Calls `f(thread, task)` once for each task. No two calls with the same `thread` overlap.
    fn run_indexed<F: Fn(usize, usize) + Sync>(&mut self, tasks: usize, f: F) {
        if self.workers.is_empty() || tasks <= 1 {
            (0..tasks).for_each(|task| f(0, task));
            return;
        }
        let shared = &*self.shared;
        let work = |thread: usize| shared.run_tasks(thread, tasks, &f);
        self.epoch += 1;
        // SAFETY: `work` lives until the end of this function, and no path leaves it before `close`
        // has returned: `run_tasks` catches panics. The pool is borrowed mutably, so no other job
        // is under way.
        unsafe { shared.publish(self.epoch, tasks, &work) };
        work(0);
        shared.close();
        let panic = lock(&shared.panic).take();
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.shutdown.store(true, Ordering::SeqCst);
        drop(lock(&self.shared.sleep));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of tasks, so there is no payload to pass on.
            let _ = worker.join();
        }
    }
}

/// # Safety
/// `data` points to a live `F`.
unsafe fn call_erased<F: Fn(usize)>(data: *const (), thread: usize) {
    // SAFETY: the caller's promise.
    let f = unsafe { &*data.cast::<F>() };
    f(thread);
}

impl Shared {
    /// Opens the gate to a job.
    ///
    /// # Safety
    /// No job is under way, and `work` lives until a call of `close` has returned.
    unsafe fn publish<F: Fn(usize) + Sync>(&self, epoch: u64, tasks: usize, work: &F) {
        let job = Job { data: std::ptr::from_ref(work).cast(), call: call_erased::<F> };
        // SAFETY: the gate is closed and nobody is joined, so nobody reads the cell.
        unsafe { *self.job.get() = Some(job) };
        self.next_task.0.store(0, Ordering::Relaxed);
        self.gate.0.store((epoch * EPOCH) | OPEN, Ordering::SeqCst);
        // Pairs with the sleeper's increment: either it is seen here, or the sleeper sees the open
        // gate.
        let sleepers = self.sleepers.load(Ordering::SeqCst);
        if sleepers > 0 {
            drop(lock(&self.sleep));
            if tasks > sleepers {
                self.wake.notify_all();
            } else {
                (1..tasks).for_each(|_| self.wake.notify_one());
            }
        }
    }

    /// Shuts the gate and waits until every worker that joined has left.
    fn close(&self) {
        self.gate.0.fetch_and(!OPEN, Ordering::SeqCst);
        let all_left = || self.gate.0.load(Ordering::Acquire) & JOINED == 0;
        if spin_until(all_left) {
            return;
        }
        let mut guard = lock(&self.sleep);
        while !all_left() {
            guard = self.done.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The life of one worker.
    fn work(&self, thread: usize) {
        let mut last_epoch = 0;
        while let Some(epoch) = self.join_next(last_epoch) {
            last_epoch = epoch;
            // SAFETY: joined, so `publish` has written the cell and does not write again before we
            // leave.
            let job = unsafe { *self.job.get() };
            if let Some(Job { data, call }) = job {
                // SAFETY: `publish`'s caller keeps `data` alive while anybody is joined.
                unsafe { call(data, thread) };
            }
            self.leave();
        }
    }

    /// Waits for a job other than `last_epoch` and joins it. `None` at shutdown.
    fn join_next(&self, last_epoch: u64) -> Option<u64> {
        let mut joined = None;
        let ready = || {
            joined = self.try_join(last_epoch);
            joined.is_some() || self.shutdown.load(Ordering::SeqCst)
        };
        if spin_until(ready) {
            return joined;
        }
        let mut guard = lock(&self.sleep);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        loop {
            let joined = self.try_join(last_epoch);
            if joined.is_some() || self.shutdown.load(Ordering::SeqCst) {
                self.sleepers.fetch_sub(1, Ordering::SeqCst);
                return joined;
            }
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn try_join(&self, last_epoch: u64) -> Option<u64> {
        let mut gate = self.gate.0.load(Ordering::SeqCst);
        loop {
            let epoch = gate / EPOCH;
            if gate & OPEN == 0 || epoch == last_epoch {
                return None;
            }
            let joined =
                self.gate.0.compare_exchange_weak(gate, gate + 1, Ordering::SeqCst, Ordering::SeqCst);
            match joined {
                Ok(_) => return Some(epoch),
                Err(now) => gate = now,
            }
        }
    }

    fn leave(&self) {
        let before = self.gate.0.fetch_sub(1, Ordering::SeqCst);
        if before & OPEN == 0 && before & JOINED == 1 {
            drop(lock(&self.sleep));
            self.done.notify_one();
        }
    }

    /// Claims and runs tasks until none is left. Never unwinds.
    fn run_tasks(&self, thread: usize, tasks: usize, f: &impl Fn(usize, usize)) {
        let all = AssertUnwindSafe(|| {
            loop {
                let task = self.next_task.0.fetch_add(1, Ordering::Relaxed);
                if task >= tasks {
                    return;
                }
                f(thread, task);
            }
        });
        if let Err(payload) = catch_unwind(all) {
            self.next_task.0.store(tasks, Ordering::Relaxed);
            let mut first = lock(&self.panic);
            if first.is_none() {
                *first = Some(payload);
            } else {
                // Not dropped: a payload's destructor could unwind through the caller's open job.
                std::mem::forget(payload);
            }
        }
    }
}

/// Spins until `ready` holds (true) or [`SPIN`] has passed (false).
fn spin_until(mut ready: impl FnMut() -> bool) -> bool {
    if ready() {
        return true;
    }
    let start = Instant::now();
    loop {
        for _ in 0..SPIN_PAUSES {
            std::hint::spin_loop();
            if ready() {
                return true;
            }
        }
        if start.elapsed() > SPIN {
            return false;
        }
    }
}

#[cfg(test)]
mod tests;
