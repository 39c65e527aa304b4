//! Counters of an engine at one moment, and where time went between two of them.

use std::time::Instant;

use engine::Engine;
use models::Phases;
use serde::Serialize;

use crate::LabError;

/// Where the time of one token went, seconds.
#[derive(Copy, Clone, Debug, Default, Serialize)]
pub struct TimeSplit {
    /// Computation waited because no expert was ready.
    pub read_wait_s: f64,
    /// Bookkeeping of the expert store: looking up, submitting reads, verifying what came.
    pub fetch_s: f64,
    /// Routed experts.
    pub expert_compute_s: f64,
    /// Mixers, norms, routers, shared experts, head.
    pub dense_compute_s: f64,
    /// All else.
    pub other_s: f64,
}

/// Counters at one moment.
#[derive(Copy, Clone)]
pub(crate) struct Mark {
    pub(crate) at: Instant,
    pub(crate) requests: u64,
    pub(crate) hits: u64,
    pub(crate) bytes_read: u64,
    pub(crate) bytes_wasted: u64,
    read_wait_us: u64,
    pub(crate) busy_us: u64,
    phases: Phases,
}

impl Mark {
    /// Counters between two passes.
    ///
    /// # Errors
    /// The engine is gone.
    pub(crate) fn now(engine: &Engine) -> Result<Self, LabError> {
        let busy_us = engine.storage().busy_us();
        Ok(engine.with_runtime(move |runtime| {
            let stats = runtime.store_stats();
            Self {
                requests: stats.requests,
                hits: stats.hits,
                bytes_read: stats.bytes_read,
                bytes_wasted: runtime.lookahead_stats().bytes_wasted,
                read_wait_us: stats.read_wait_us,
                busy_us,
                phases: runtime.phases(),
                at: Instant::now(),
            }
        })?)
    }

    /// What happened until `end`, and where the time of each of `tokens` went.
    pub(crate) fn split(&self, end: &Mark, tokens: usize) -> TimeSplit {
        let phases = end.phases.since(&self.phases);
        let per_token = |seconds: f64| seconds / tokens.max(1) as f64;
        let wait = (end.read_wait_us - self.read_wait_us) as f64 / 1e6;
        let wall = (end.at - self.at).as_secs_f64();
        TimeSplit {
            read_wait_s: per_token(wait),
            fetch_s: per_token((phases.fetch.as_secs_f64() - wait).max(0.0)),
            expert_compute_s: per_token(phases.experts.as_secs_f64()),
            dense_compute_s: per_token(phases.dense().as_secs_f64()),
            other_s: per_token((wall - phases.forward.as_secs_f64()).max(0.0)),
        }
    }
}
