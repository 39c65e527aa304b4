//! Reader threads: as many reads in flight as there are threads.
//!
//! A request becomes one [`Job`] and one [`Task`] for each piece of it; threads take tasks in the
//! order of submission. So the pieces of one expert are read side by side, the expert that was
//! asked for first lands first, and the drive's queue stays full as long as there is anything to
//! read.
//!
//! The completion is sent by the drop of the `Job`, that is, when the last of its tasks is gone for
//! whatever reason. That no waiter waits for ever is thus not a matter of care.
//!
//! An io_uring engine would stand beside this file and keep `Job`.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::buffer::{Lender, Piece};
use crate::file::{Bounce, OpenFile};
use crate::{AlignedBuf, Completion, CompletionQueue, ReadRequest, Segment, StorageError};

/// Tasks that the queue has room for from the start: 10 experts in pieces of 1 MiB.
const TASKS_EXPECTED: usize = 128;

/// The threads and what they have to do.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    bytes_read: AtomicU64,
}

struct State {
    tasks: VecDeque<Task>,
    /// Tasks that a thread is at.
    reading: usize,
    /// Since when there has been something to do without a break.
    busy_since: Option<Instant>,
    /// All such times before.
    busy: Duration,
    closed: bool,
}

impl Pool {
    pub(crate) fn new(threads: usize, bounce_bytes: usize) -> Result<Self, StorageError> {
        let state = State {
            tasks: VecDeque::with_capacity(TASKS_EXPECTED),
            reading: 0,
            busy_since: None,
            busy: Duration::ZERO,
            closed: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            work: Condvar::new(),
            bytes_read: AtomicU64::new(0),
        });
        // Made before the threads, so that those which did start are ended if one does not.
        let mut pool = Pool { shared, threads: Vec::with_capacity(threads) };
        for index in 0..threads {
            let shared = Arc::clone(&pool.shared);
            let thread = thread::Builder::new()
                .name(format!("storage-{index}"))
                .spawn(move || shared.serve(Bounce::new(bounce_bytes)))
                .map_err(|source| StorageError::Spawn { source })?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// Adds the tasks that `plan` makes of the job, or fails the job and adds none.
    pub(crate) fn submit(
        &self,
        job: Arc<Job>,
        plan: impl FnOnce(&Arc<Job>, &mut VecDeque<Task>) -> Result<(), StorageError>,
    ) {
        let mut state = self.shared.lock();
        let mark = state.tasks.len();
        if let Err(error) = plan(&job, &mut state.tasks) {
            state.tasks.truncate(mark);
            job.lock().fail(0, error);
        }
        let added = state.tasks.len() - mark;
        if added > 0 && state.busy_since.is_none() {
            state.busy_since = Some(Instant::now());
        }
        drop(state);
        match added {
            0 => {}
            1 => self.shared.work.notify_one(),
            _ => self.shared.work.notify_all(),
        }
    }

    pub(crate) fn bytes_read(&self) -> u64 {
        self.shared.bytes_read.load(Ordering::Relaxed)
    }

    pub(crate) fn busy(&self) -> Duration {
        let state = self.shared.lock();
        state.busy + state.busy_since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let abandoned = {
            let mut state = self.shared.lock();
            state.closed = true;
            mem::take(&mut state.tasks)
        };
        drop(abandoned); // Completes their jobs, outside the lock.
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A reader that panicked has nothing to say that its job's completion did not.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// The life of a reader thread.
    fn serve(&self, mut bounce: Bounce) {
        while let Some(mut task) = self.next_task() {
            let result = task.read(&mut bounce);
            if let Ok(bytes) = result {
                self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
            }
            // Before the completion goes out, so that whoever receives it finds it counted.
            self.task_done();
            task.finish(result);
        }
    }

    fn next_task(&self) -> Option<Task> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(task) = state.tasks.pop_front() {
                state.reading += 1;
                return Some(task);
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn task_done(&self) {
        let mut state = self.lock();
        state.reading -= 1;
        if state.reading == 0
            && state.tasks.is_empty()
            && let Some(since) = state.busy_since.take()
        {
            state.busy += since.elapsed();
        }
    }

    // Nothing under this lock leaves the state half changed when it panics.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request under way. Its drop completes it.
pub(crate) struct Job {
    tag: u64,
    /// Ascending in the buffer.
    segments: Vec<Segment>,
    queue: CompletionQueue,
    submitted: Instant,
    progress: Mutex<Progress>,
}

struct Progress {
    lender: Option<Lender>,
    /// Tasks made and not yet done well.
    tasks_left: usize,
    bytes_read: u64,
    /// Where in the buffer the first failed task starts, and how it failed.
    failure: Option<(usize, StorageError)>,
}

impl Job {
    pub(crate) fn new(request: ReadRequest, queue: &CompletionQueue) -> Arc<Job> {
        let ReadRequest { tag, buf, mut segments } = request;
        if !segments.is_sorted_by_key(|segment| segment.buf_offset) {
            segments.sort_unstable_by_key(|segment| segment.buf_offset);
        }
        let progress =
            Progress { lender: Some(Lender::new(buf)), tasks_left: 0, bytes_read: 0, failure: None };
        Arc::new(Job {
            tag,
            segments,
            queue: queue.clone(),
            submitted: Instant::now(),
            progress: Mutex::new(progress),
        })
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// A task that reads `bytes` bytes of `file`, of which the first `expected` exist, to
    /// `buf_offset`.
    pub(crate) fn task(
        self: &Arc<Self>,
        file: &Arc<OpenFile>,
        offset: u64,
        bytes: usize,
        expected: usize,
        buf_offset: usize,
    ) -> Result<Task, StorageError> {
        let mut progress = self.lock();
        let lender = progress.lender.as_mut();
        let buf_bytes = lender.as_ref().map_or(0, |lender| lender.len());
        let piece = buf_offset
            .checked_add(bytes)
            .and_then(|end| lender?.take(buf_offset..end))
            .ok_or(StorageError::BadSegment { buf_offset, bytes, buf_bytes })?;
        progress.tasks_left += 1;
        Ok(Task { piece, file: Arc::clone(file), offset, expected, buf_offset, job: Arc::clone(self) })
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    /// Keeps the failure that lies first in the buffer, whichever thread met its own first.
    fn fail(&mut self, buf_offset: usize, error: StorageError) {
        if self.failure.as_ref().is_none_or(|(first, _)| buf_offset < *first) {
            self.failure = Some((buf_offset, error));
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let progress = self.progress.get_mut().unwrap_or_else(PoisonError::into_inner);
        let buf = progress.lender.take().and_then(Lender::into_inner);
        debug_assert!(buf.is_some(), "a task drops its piece before its job");
        let result = match progress.failure.take() {
            Some((_, error)) => Err(error),
            None if progress.tasks_left > 0 => Err(StorageError::Closed),
            None => Ok(()),
        };
        let wait_us = self.submitted.elapsed().as_micros();
        self.queue.push(Completion {
            tag: self.tag,
            buf: buf.unwrap_or_else(AlignedBuf::empty),
            segments: mem::take(&mut self.segments),
            result,
            bytes_read: progress.bytes_read,
            wait_us: u64::try_from(wait_us).unwrap_or(u64::MAX),
        });
    }
}

/// One read of one thread. The fields drop in this order: the piece goes back before the job may
/// complete.
pub(crate) struct Task {
    piece: Piece,
    file: Arc<OpenFile>,
    offset: u64,
    expected: usize,
    buf_offset: usize,
    job: Arc<Job>,
}

impl Task {
    fn read(&mut self, bounce: &mut Bounce) -> Result<u64, StorageError> {
        self.file.read(self.offset, &mut self.piece, self.expected, bounce)
    }

    fn finish(self, result: Result<u64, StorageError>) {
        let mut progress = self.job.lock();
        match result {
            Ok(bytes) => {
                progress.tasks_left -= 1;
                progress.bytes_read += bytes;
            }
            Err(error) => progress.fail(self.buf_offset, error),
        }
    }
}
