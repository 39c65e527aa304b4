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
use crate::open_file::OpenFile;
use crate::{AlignedBuf, Completion, CompletionQueue, ReadRequest, Segment, StorageError};

/// Tasks that a queue has room for from the start: 10 experts in pieces of 1 MiB.
const TASKS_EXPECTED: usize = 128;

/// Whether somebody waits for a read.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    Wanted,
    /// Nobody yet.
    Ahead,
}

/// Tasks ahead begin while fewer than this are under way: enough that the drive does not pause
/// between two, few enough that what is asked for next shares the drive with little
/// (docs/experiments/2026-11-decode-regions.md).
const AHEAD_TASKS: usize = 4;

/// Tasks that wait for an engine, and since when it has been busy. Lives under the engine's lock.
pub(crate) struct Queued {
    tasks: VecDeque<Task>,
    /// Tasks that nobody waits for yet.
    ahead: VecDeque<Task>,
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
            ahead: VecDeque::with_capacity(TASKS_EXPECTED),
            reading: 0,
            busy_since: None,
            busy: Duration::ZERO,
            closed: false,
        }
    }

    /// Adds the tasks that `plan` makes of the job, or fails the job and adds none. How many of
    /// them may begin, as far as this queue is concerned.
    pub(crate) fn add(
        &mut self,
        job: &Arc<Job>,
        urgency: Urgency,
        plan: impl FnOnce(&Arc<Job>, &mut VecDeque<Task>) -> Result<(), StorageError>,
    ) -> usize {
        let tasks = match urgency {
            Urgency::Wanted => &mut self.tasks,
            Urgency::Ahead => &mut self.ahead,
        };
        let mark = tasks.len();
        if let Err(error) = plan(job, tasks) {
            tasks.truncate(mark);
            job.lock().fail(0, error);
        }
        let added = tasks.len() - mark;
        if added > 0 && self.busy_since.is_none() {
            self.busy_since = Some(Instant::now());
        }
        match urgency {
            Urgency::Wanted => added,
            Urgency::Ahead => added.min(AHEAD_TASKS.saturating_sub(self.reading)),
        }
    }

    /// Of the tasks ahead whose completions go to `queue`, those of jobs with a tag in `wanted` are
    /// wanted from now on (how many they are), the others are given back: to be withdrawn outside
    /// the lock.
    pub(crate) fn settle_ahead(&mut self, queue: &CompletionQueue, wanted: &[u64]) -> (usize, Vec<Task>) {
        let (mut moved, mut given_up) = (0, Vec::new());
        for task in mem::take(&mut self.ahead) {
            if !task.job.queue.is(queue) {
                self.ahead.push_back(task);
            } else if wanted.contains(&task.job.tag) {
                self.tasks.push_back(task);
                moved += 1;
            } else {
                given_up.push(task);
            }
        }
        self.note_idle();
        (moved, given_up)
    }

    pub(crate) fn next(&mut self) -> Option<Task> {
        let task = match self.tasks.pop_front() {
            Some(task) => task,
            None if self.reading < AHEAD_TASKS => self.ahead.pop_front()?,
            None => return None,
        };
        self.reading += 1;
        Some(task)
    }

    /// Everything that waits.
    pub(crate) fn take_all(&mut self) -> [VecDeque<Task>; 2] {
        [mem::take(&mut self.tasks), mem::take(&mut self.ahead)]
    }

    /// A task given out by `next` has been read. To be said before its job may complete, so that whoever
    /// receives the completion finds it counted.
    pub(crate) fn task_done(&mut self) {
        self.reading -= 1;
        self.note_idle();
    }

    fn note_idle(&mut self) {
        if self.reading == 0
            && self.tasks.is_empty()
            && self.ahead.is_empty()
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
    /// Gives the task up before it has begun.
    pub(crate) fn withdraw(self) {
        self.job.lock().fail(self.buf_offset, StorageError::Withdrawn);
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FileId, IoMode};
    use std::fs;

    #[test]
    fn what_is_ahead_waits_for_what_is_wanted_and_for_room() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, [0; 8192]).unwrap();
        let file = Arc::new(OpenFile::open(&path, IoMode::Buffered, 0).unwrap());
        let (queue, other) = (CompletionQueue::new(), CompletionQueue::new());
        let mut queued = Queued::new();
        let add = |queued: &mut Queued, tag: u64, urgency: Urgency, queue: &CompletionQueue| {
            let segments = vec![Segment { file: FileId(0), offset: 0, bytes: 4096, buf_offset: 0 }];
            let job = Job::new(ReadRequest { tag, buf: AlignedBuf::new(4096).unwrap(), segments }, queue);
            let plan = |job: &Arc<Job>, tasks: &mut VecDeque<Task>| {
                tasks.push_back(job.task(&file, 0, 4096, 4096, 0)?);
                Ok(())
            };
            queued.add(&job, urgency, plan)
        };
        let tag = |task: &Option<Task>| task.as_ref().map(|task| task.job.tag);
        for ahead in 10..16 {
            assert_eq!(add(&mut queued, ahead, Urgency::Ahead, &queue), 1); // Nothing is under way yet.
        }
        add(&mut queued, 20, Urgency::Ahead, &other);
        assert_eq!(add(&mut queued, 1, Urgency::Wanted, &queue), 1);
        let mut under_way: Vec<_> = (0..AHEAD_TASKS).map(|_| queued.next()).collect();
        let tags: Vec<_> = under_way.iter().map(&tag).collect();
        assert_eq!(tags, [Some(1), Some(10), Some(11), Some(12)]);
        assert!(queued.next().is_none(), "there is no room for what is ahead");
        assert_eq!(add(&mut queued, 16, Urgency::Ahead, &queue), 0);
        assert_eq!(add(&mut queued, 2, Urgency::Wanted, &queue), 1);
        assert_eq!(tag(&under_way.pop().unwrap()), Some(12));
        queued.task_done();
        let (moved, given_up) = queued.settle_ahead(&queue, &[14, 99]);
        let given_up: Vec<_> = given_up.into_iter().map(|task| task.job.tag).collect();
        assert_eq!((moved, given_up), (1, vec![13, 15, 16]));
        let rest: Vec<_> = std::iter::from_fn(|| queued.next()).collect();
        let tags: Vec<_> = rest.iter().map(|task| task.job.tag).collect();
        assert_eq!(tags, [2, 14], "the one of the other queue has no room yet");
        (0..5).for_each(|_| queued.task_done());
        assert_eq!(tag(&queued.next()), Some(20));
        assert!(queued.busy_since.is_some());
        queued.task_done();
        assert!(queued.busy_since.is_none());
    }
}
