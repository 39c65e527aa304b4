//! Requests and calls on their way from callers to the engine's thread.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};

use crate::EngineError;

/// Something to do on the engine's thread between two passes.
pub(crate) type Call<W> = Box<dyn FnOnce(&mut W) + Send>;

/// Requests and calls that were handed in and not taken yet.
pub(crate) struct Letters<R, W> {
    pub(crate) requests: Vec<R>,
    pub(crate) calls: VecDeque<Call<W>>,
    /// Something changed that the worker may have waited for.
    poked: bool,
    /// The worker is gone.
    closed: bool,
}

/// Requests `R` and calls on a worker `W`.
pub(crate) struct Inbox<R, W> {
    letters: Mutex<Letters<R, W>>,
    arrived: Condvar,
    /// Requests that were handed in and do not run yet.
    waiting: Mutex<usize>,
    waiting_max: usize,
    /// The last handle is gone.
    pub(crate) closing: Arc<AtomicBool>,
}

impl<R, W> Inbox<R, W> {
    pub(crate) fn new(waiting_max: usize) -> Self {
        Self {
            letters: Mutex::new(Letters::new()),
            arrived: Condvar::new(),
            waiting: Mutex::new(0),
            waiting_max,
            closing: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Letters<R, W>> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands in a request.
    ///
    /// # Errors
    /// [`EngineError::QueueFull`], [`EngineError::Closed`].
    pub(crate) fn submit(&self, request: R) -> Result<(), EngineError> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if *waiting >= self.waiting_max {
            return Err(EngineError::QueueFull { waiting: *waiting });
        }
        let mut letters = self.lock();
        if letters.closed {
            return Err(EngineError::Closed);
        }
        *waiting += 1;
        letters.requests.push(request);
        self.arrived.notify_one();
        Ok(())
    }

    /// Notes that a request waits no longer.
    pub(crate) fn left_queue(&self) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    }

    /// Requests that do not run yet.
    pub(crate) fn waiting(&self) -> usize {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `call` on the engine's thread and waits for its result.
    ///
    /// # Errors
    /// [`EngineError::Closed`].
    pub(crate) fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut W) -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        self.post(call)?.recv().map_err(|_| EngineError::Closed)
    }

    /// Has `call` run on the engine's thread; its result comes by the receiver.
    ///
    /// # Errors
    /// [`EngineError::Closed`].
    pub(crate) fn post<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut W) -> T + Send + 'static,
    ) -> Result<mpsc::Receiver<T>, EngineError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let mut letters = self.lock();
        if letters.closed {
            return Err(EngineError::Closed);
        }
        // Who waits for the result is the caller, who is still there.
        letters.calls.push_back(Box::new(move |worker| drop(sender.send(call(worker)))));
        self.arrived.notify_one();
        Ok(receiver)
    }

    /// Makes the worker look again.
    pub(crate) fn poke(&self) {
        self.lock().poked = true;
        self.arrived.notify_one();
    }

    /// Tells the worker to end.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        self.poke();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// The letters that arrived; waits for one if `idle`.
    pub(crate) fn take(&self, idle: bool) -> Letters<R, W> {
        let mut letters = self.lock();
        while idle && letters.requests.is_empty() && letters.calls.is_empty() && !letters.poked {
            letters = self.arrived.wait(letters).unwrap_or_else(PoisonError::into_inner);
        }
        letters.poked = false;
        Letters {
            requests: std::mem::take(&mut letters.requests),
            calls: std::mem::take(&mut letters.calls),
            poked: false,
            closed: false,
        }
    }

    /// The worker ends: letters that were not taken get no other answer.
    pub(crate) fn shut(&self) -> Letters<R, W> {
        let closed = Letters { closed: true, ..Letters::new() };
        std::mem::replace(&mut *self.lock(), closed)
    }
}

impl<R, W> Letters<R, W> {
    fn new() -> Self {
        Self { requests: Vec::new(), calls: VecDeque::new(), poked: false, closed: false }
    }
}
