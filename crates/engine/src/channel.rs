//! The events of one request on their way from the engine's thread to the caller's: a queue that
//! does not grow.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{EngineError, Event};

/// Events that wait to be taken before the request is not scheduled any more.
const EVENTS_MAX: usize = 64;
/// As many rows of logits, which are large.
const LOGIT_ROWS_MAX: usize = 4;

/// How often a writer that waits for its reader looks whether the engine closes.
const CLOSING_POLL: Duration = Duration::from_millis(20);

/// An event, or the error that ended the request.
pub(crate) type Item = Result<Event, EngineError>;

/// No event came in the caller's waiting time.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct StillRunning;

pub(crate) struct Channel {
    queue: Mutex<Queue>,
    /// There is an event, or no more will come.
    filled: Condvar,
    /// There is room, or the reader is gone.
    emptied: Condvar,
    cancelled: AtomicBool,
    /// The engine closes: waiting ends.
    closing: Arc<AtomicBool>,
    capacity: usize,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    closed: bool,
}

impl Channel {
    pub(crate) fn new(with_logits: bool, closing: Arc<AtomicBool>) -> Self {
        let capacity = if with_logits { LOGIT_ROWS_MAX } else { EVENTS_MAX };
        Self {
            queue: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            cancelled: AtomicBool::new(false),
            closing,
            capacity,
        }
    }

    /// A panic elsewhere leaves a queue that is whole.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the reader keeps up.
    pub(crate) fn has_room(&self) -> bool {
        self.lock().items.len() < self.capacity
    }

    /// Adds an event, whether there is room or not: a pass adds a fixed number of events at most,
    /// and the request takes part in none while there is no room.
    pub(crate) fn push(&self, event: Event) {
        let mut queue = self.lock();
        if matches!(event, Event::Prefill { .. })
            && matches!(queue.items.back(), Some(Ok(Event::Prefill { .. })))
        {
            queue.items.pop_back();
        }
        queue.items.push_back(Ok(event));
        drop(queue);
        self.filled.notify_one();
    }

    /// Adds an event when there is room, unless the request is cancelled.
    pub(crate) fn push_when_room(&self, event: Event) {
        let mut queue = self.lock();
        while queue.items.len() >= self.capacity && !self.is_cancelled() {
            let waited = self.emptied.wait_timeout(queue, CLOSING_POLL);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if !self.is_cancelled() {
            queue.items.push_back(Ok(event));
            self.filled.notify_one();
        }
    }

    /// Adds the last item. Only the first call counts.
    pub(crate) fn close(&self, last: Item) {
        let mut queue = self.lock();
        if !queue.closed {
            queue.closed = true;
            queue.items.push_back(last);
            self.filled.notify_all();
        }
    }

    /// The next item, and whether there was no room before; `None` after the last one. Waits for
    /// `time` at most, if one is given.
    pub(crate) fn next(&self, time: Option<Duration>) -> Result<Option<(Item, bool)>, StillRunning> {
        let until = time.map(|time| Instant::now() + time);
        let mut queue = self.lock();
        loop {
            let full = queue.items.len() >= self.capacity;
            if let Some(item) = queue.items.pop_front() {
                self.emptied.notify_one();
                return Ok(Some((item, full)));
            }
            if queue.closed {
                return Ok(None);
            }
            queue = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return Err(StillRunning),
                Some(left) => self.filled.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    pub(crate) fn cancel(&self) {
        // Under the lock, or a writer that has just looked would wait for ever.
        let _queue = self.lock();
        self.cancelled.store(true, Ordering::Relaxed);
        self.emptied.notify_all();
    }

    /// Whether the request is to end: its caller said so, or the engine closes.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed) || self.closing.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: u32) -> Event {
        Event::Token { id, text: String::new() }
    }

    #[test]
    fn progress_is_coalesced_and_the_last_item_comes_last() {
        let channel = Channel::new(false, Arc::default());
        (1..=5).for_each(|done| channel.push(Event::Prefill { done, total: 5, share: 0.0 }));
        channel.push(token(7));
        channel.close(Err(EngineError::Closed));
        channel.close(Ok(token(8)));
        assert!(matches!(channel.next(None).unwrap(), Some((Ok(Event::Prefill { done: 5, .. }), false))));
        assert!(matches!(channel.next(None).unwrap(), Some((Ok(Event::Token { id: 7, .. }), _))));
        assert!(matches!(channel.next(None).unwrap(), Some((Err(EngineError::Closed), _))));
        assert!(channel.next(None).unwrap().is_none());
    }

    #[test]
    fn a_writer_that_waits_goes_on_when_there_is_room_or_nobody_reads() {
        let channel = Channel::new(true, Arc::default());
        let written = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..=LOGIT_ROWS_MAX as u32 + 1).for_each(|id| channel.push_when_room(token(id)));
                written.store(true, Ordering::Relaxed);
            });
            // Blocks until the first was written.
            assert!(matches!(channel.next(None).unwrap(), Some((Ok(Event::Token { id: 0, .. }), _))));
            channel.cancel();
        });
        assert!(written.load(Ordering::Relaxed));
        assert!(channel.lock().items.len() <= LOGIT_ROWS_MAX);
    }
}
