//! Where the time of a step goes.

use std::time::{Duration, Instant};

/// Time spent since the scratch was made, as the calling thread sees it. What is not in `fetch` or `experts` is dense work:
/// mixers, norms, router, shared expert and head.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// Whole steps.
    pub forward: Duration,
    /// In the expert store: looking up, submitting reads, waiting for them, verifying what came.
    pub fetch: Duration,
    /// Computing routed experts.
    pub experts: Duration,
}

impl Phases {
    /// What has been spent since `earlier`.
    pub fn since(&self, earlier: &Phases) -> Phases {
        Phases {
            forward: self.forward.saturating_sub(earlier.forward),
            fetch: self.fetch.saturating_sub(earlier.fetch),
            experts: self.experts.saturating_sub(earlier.experts),
        }
    }

    /// Dense work.
    pub fn dense(&self) -> Duration {
        self.forward.saturating_sub(self.fetch + self.experts)
    }
}

/// A stopwatch that is read in laps: some tens of nanoseconds a lap.
pub(crate) struct Laps(Instant);

impl Laps {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start or the last lap.
    pub(crate) fn lap(&mut self) -> Duration {
        let now = Instant::now();
        now - std::mem::replace(&mut self.0, now)
    }
}
