//! Reader threads: as many reads in flight as there are threads.
//!
//! Threads take tasks in the order of submission, those that nobody waits for yet last. So the
//! pieces of one expert are read side by side, the expert that was asked for first lands first, and
//! the drive's queue stays full as long as there is anything to read. The engine for every system;
//! on Linux `uring` stands beside it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::job::{Job, Queued, Task, Urgency};
use crate::reading::{Bounce, read_blocking};
use crate::{CompletionQueue, StorageError};

/// The threads and what they have to do.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    queued: Mutex<Queued>,
    work: Condvar,
    bytes_read: AtomicU64,
}

impl Pool {
    pub(crate) fn new(threads: usize, bounce_bytes: usize) -> Result<Self, StorageError> {
        let shared = Arc::new(Shared {
            queued: Mutex::new(Queued::new()),
            work: Condvar::new(),
            bytes_read: AtomicU64::new(0),
        });
        // Made before the threads, so that those which did start are ended if one does not.
        let mut pool = Pool { shared, threads: Vec::with_capacity(threads) };
        for index in 0..threads {
            let shared = Arc::clone(&pool.shared);
            let builder = thread::Builder::new().name(format!("storage-{index}"));
            match builder.spawn(move || shared.serve(Bounce::new(bounce_bytes))) {
                Ok(thread) => pool.threads.push(thread),
                // Fewer reads in flight are slower, and that is all.
                Err(_) if index > 0 => break,
                Err(source) => return Err(StorageError::Spawn { source }),
            }
        }
        Ok(pool)
    }

    /// Adds the tasks that `plan` makes of the job, or fails the job and adds none.
    pub(crate) fn submit(
        &self,
        job: &Arc<Job>,
        urgency: Urgency,
        plan: impl FnOnce(&Arc<Job>, &mut VecDeque<Task>) -> Result<(), StorageError>,
    ) {
        let ready = self.shared.lock().add(job, urgency, plan);
        self.wake(ready);
    }

    /// See [`Queued::settle_ahead`].
    pub(crate) fn settle_ahead(&self, queue: &CompletionQueue, wanted: &[u64]) {
        let (moved, given_up) = self.shared.lock().settle_ahead(queue, wanted);
        self.wake(moved);
        given_up.into_iter().for_each(Task::withdraw);
    }

    /// Wakes threads for so many tasks. What may not begin yet is found by a thread that has ended another.
    fn wake(&self, tasks: usize) {
        match tasks {
            0 => {}
            1 => self.shared.work.notify_one(),
            _ => self.shared.work.notify_all(),
        }
    }

    pub(crate) fn bytes_read(&self) -> u64 {
        self.shared.bytes_read.load(Ordering::Relaxed)
    }

    pub(crate) fn busy(&self) -> Duration {
        self.shared.lock().busy()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let abandoned = {
            let mut queued = self.shared.lock();
            queued.closed = true;
            queued.take_all()
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
            let result = read_blocking(&mut task, &mut bounce);
            if let Ok(bytes) = result {
                self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
            }
            self.lock().task_done();
            task.finish(result);
        }
    }

    fn next_task(&self) -> Option<Task> {
        let mut queued = self.lock();
        loop {
            if queued.closed {
                return None;
            }
            if let Some(task) = queued.next() {
                return Some(task);
            }
            queued = self.work.wait(queued).unwrap_or_else(PoisonError::into_inner);
        }
    }

    // Nothing under this lock leaves the state half changed when it panics.
    fn lock(&self) -> MutexGuard<'_, Queued> {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
