//! Where finished reads wait for their consumer.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::Completion;

/// A queue of [`Completion`]s. Clones are handles on the same queue; one consumer takes from it.
/// All requests whose completions go to it are submitted to one storage.
#[derive(Clone, Default)]
pub struct CompletionQueue {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
    driver: Mutex<Option<Weak<dyn Driver>>>,
}

#[derive(Default)]
struct State {
    done: VecDeque<Completion>,
    /// How often a driver was given something to do.
    pokes: u64,
}

/// An engine without threads of its own: whoever waits for a completion does its work.
pub(crate) trait Driver: Send + Sync {
    /// Deals with what is done, without waiting.
    fn poll(&self);

    /// Deals with what is done, and waits for more until `ready` holds or the deadline has passed.
    fn drive(&self, ready: &dyn Fn() -> bool, deadline: Option<Instant>) -> Driven;
}

/// How [`Driver::drive`] ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Driven {
    /// `ready` holds.
    Ready,
    /// It does not, and nothing is under way that could change it.
    Idle,
    /// The deadline has passed.
    TimedOut,
}

impl CompletionQueue {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next completion; waits for it. Blocks for ever when nothing is under way, so count.
    pub fn wait(&self) -> Completion {
        loop {
            if let Some(completion) = self.next_until(None) {
                return completion;
            }
        }
    }

    /// The next completion, or None when none came within `timeout`.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Completion> {
        self.next_until(Some(Instant::now() + timeout))
    }

    /// The next completion if there is one already.
    pub fn try_next(&self) -> Option<Completion> {
        let completion = self.lock().done.pop_front();
        completion.or_else(|| {
            self.driver()?.poll();
            self.lock().done.pop_front()
        })
    }

    fn next_until(&self, deadline: Option<Instant>) -> Option<Completion> {
        loop {
            let mut state = self.lock();
            if let Some(completion) = state.done.pop_front() {
                return Some(completion);
            }
            let pokes = state.pokes;
            drop(state);
            let ready = || !self.lock().done.is_empty();
            match self.driver().map_or(Driven::Idle, |driver| driver.drive(&ready, deadline)) {
                Driven::Ready => continue,
                Driven::TimedOut => return self.lock().done.pop_front(),
                Driven::Idle => {}
            }
            // Something else delivers, or a driver is about to be given something to do.
            state = self.lock();
            while state.done.is_empty() && state.pokes == pokes {
                let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
                state = match left {
                    Some(Duration::ZERO) => return None,
                    Some(left) => {
                        self.shared
                            .arrived
                            .wait_timeout(state, left)
                            .unwrap_or_else(PoisonError::into_inner)
                            .0
                    }
                    None => self.shared.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
                };
            }
        }
    }

    /// Whether both are handles on one queue.
    pub(crate) fn is(&self, other: &CompletionQueue) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    pub(crate) fn push(&self, completion: Completion) {
        self.lock().done.push_back(completion);
        self.shared.arrived.notify_one();
    }

    /// Names the engine that the consumer has to drive.
    pub(crate) fn attach(&self, driver: &Weak<dyn Driver>) {
        let mut slot = self.shared.driver.lock().unwrap_or_else(PoisonError::into_inner);
        if !slot.as_ref().is_some_and(|known| known.ptr_eq(driver)) {
            *slot = Some(Weak::clone(driver));
        }
    }

    /// The driver has been given something to do: a consumer that sleeps has to drive it.
    pub(crate) fn poke(&self) {
        self.lock().pokes += 1;
        self.shared.arrived.notify_all();
    }

    fn driver(&self) -> Option<Arc<dyn Driver>> {
        self.shared.driver.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.upgrade()
    }

    // A poisoned lock only says that a thread panicked while it moved a completion; the deque is
    // whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
