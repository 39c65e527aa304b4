//! A request under way, and the pieces that it is read in.
//!
//! A request becomes one [`Job`] and one [`Task`] for each piece of it. An engine (`pool`, `uring`) reads the
//! tasks; the completion is sent by the drop of the `Job`, that is, when the last of its tasks is gone for
//! whatever reason. That no waiter waits for ever is thus not a matter of care.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::buffer::{Lender, Piece};
use crate::file::OpenFile;
use crate::{AlignedBuf, Completion, CompletionQueue, ReadRequest, Segment, StorageError};

/// Tasks that a queue has room for from the start: 10 experts in pieces of 1 MiB.
const TASKS_EXPECTED: usize = 128;

/// Tasks that wait for an engine, and since when it has been busy. Lives under the engine's lock.
pub(crate) struct Queued {
    pub(crate) tasks: VecDeque<Task>,
    /// Tasks that are being read.
    pub(crate) reading: usize,
    /// Since when there has been something to do without a break.
    busy_since: Option<Instant>,
    /// All such times before.
    busy: Duration,
    pub(crate) closed: bool,
}

impl Queued {
    pub(crate) fn new() -> Self {
        Queued {
            tasks: VecDeque::with_capacity(TASKS_EXPECTED),
            reading: 0,
            busy_since: None,
            busy: Duration::ZERO,
            closed: false,
        }
    }

    /// Adds the tasks that `plan` makes of the job, or fails the job and adds none. How many were added.
    pub(crate) fn add(
        &mut self,
        job: &Arc<Job>,
        plan: impl FnOnce(&Arc<Job>, &mut VecDeque<Task>) -> Result<(), StorageError>,
    ) -> usize {
        let mark = self.tasks.len();
        if let Err(error) = plan(job, &mut self.tasks) {
            self.tasks.truncate(mark);
            job.lock().fail(0, error);
        }
        let added = self.tasks.len() - mark;
        if added > 0 && self.busy_since.is_none() {
            self.busy_since = Some(Instant::now());
        }
        added
    }

    pub(crate) fn next(&mut self) -> Option<Task> {
        let task = self.tasks.pop_front()?;
        self.reading += 1;
        Some(task)
    }

    /// A task given out by `next` has been read. To be said before its job may complete, so that whoever
    /// receives the completion finds it counted.
    pub(crate) fn task_done(&mut self) {
        self.reading -= 1;
        if self.reading == 0
            && self.tasks.is_empty()
            && let Some(since) = self.busy_since.take()
        {
            self.busy += since.elapsed();
        }
    }

    pub(crate) fn busy(&self) -> Duration {
        self.busy + self.busy_since.map_or(Duration::ZERO, |since| since.elapsed())
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

/// One piece of a request. The fields drop in this order: the piece goes back before the job may complete.
pub(crate) struct Task {
    pub(crate) piece: Piece,
    pub(crate) file: Arc<OpenFile>,
    pub(crate) offset: u64,
    /// Bytes of the piece, from its start, that exist in the file.
    pub(crate) expected: usize,
    buf_offset: usize,
    job: Arc<Job>,
}

impl Task {
    pub(crate) fn finish(self, result: Result<u64, StorageError>) {
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
