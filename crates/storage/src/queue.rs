//! Where finished reads wait for their consumer.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::Completion;

/// A queue of [`Completion`]s. Clones are handles on the same queue; one consumer takes from it.
#[derive(Clone, Debug, Default)]
pub struct CompletionQueue {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    done: Mutex<VecDeque<Completion>>,
    arrived: Condvar,
}

impl CompletionQueue {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next completion; waits for it. Blocks for ever when nothing is under way, so count.
    pub fn wait(&self) -> Completion {
        let mut done = self.lock();
        loop {
            if let Some(completion) = done.pop_front() {
                return completion;
            }
            done = self.shared.arrived.wait(done).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The next completion, or None when none came within `timeout`.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Completion> {
        let deadline = Instant::now() + timeout;
        let mut done = self.lock();
        loop {
            if let Some(completion) = done.pop_front() {
                return Some(completion);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            done = self.shared.arrived.wait_timeout(done, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The next completion if there is one already.
    pub fn try_next(&self) -> Option<Completion> {
        self.lock().pop_front()
    }

    pub(crate) fn push(&self, completion: Completion) {
        self.lock().push_back(completion);
        self.shared.arrived.notify_one();
    }

    // A poisoned lock only says that a thread panicked while it moved a completion; the deque is
    // whole.
    fn lock(&self) -> MutexGuard<'_, VecDeque<Completion>> {
        self.shared.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
