//! Times, rates and bytes of a run, in the words and units of the command-line contract.

use experts::StoreStats;
use serde::Serialize;

/// Statistics of one generation. Times in seconds, sizes in bytes, rates per second. Expert figures
/// count every pass that the request took part in; requests that ran beside it share them. A figure
/// of something that did not happen, of decoding say in a request that was cancelled in its prompt,
/// is `None`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RunStats {
    /// Tokens of the prompt that were computed.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that had been computed before.
    pub reused_tokens: usize,
    /// Tokens generated.
    pub generated_tokens: usize,
    /// Time before it was the request's turn.
    pub waited_s: f64,
    /// From the start of the request to the first token.
    pub time_to_first_token_s: Option<f64>,
    /// Prompt tokens per second, of a whole prompt.
    pub prefill_tokens_per_s: Option<f64>,
    /// Generated tokens per second after the first, of two or more.
    pub decode_tokens_per_s: Option<f64>,
    /// Bytes read from disk for experts in prefill.
    pub prefill_expert_bytes_read: Option<u64>,
    /// Bytes read from disk for experts in decode.
    pub decode_expert_bytes_read: Option<u64>,
    /// Expert bytes read per decoded token.
    pub expert_bytes_per_token: Option<f64>,
    /// Share of expert requests in decode that were in memory.
    pub hit_rate: Option<f64>,
    /// Time that the computation waited for reads.
    pub read_wait_s: f64,
    /// Expert slots in memory.
    pub expert_slots: usize,
    /// Experts that each token used: always the model's own number.
    pub experts_per_token: usize,
    /// Highest resident memory of the process, where the system tells.
    pub peak_resident_bytes: Option<u64>,
    /// The budget that the plan was made for.
    pub memory_budget_bytes: u64,
    /// Why reads went through the page cache although direct reads were requested.
    pub io_fallback: Option<String>,
    /// Number format of keys and values.
    pub kv: String,
    /// Lossy options that were on.
    pub lossy: Vec<String>,
}

/// Requests, pages and reads of an engine at one moment.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EngineStats {
    /// Requests that run.
    pub running: usize,
    /// Requests that wait for their turn.
    pub waiting: usize,
    /// Pages of keys and values.
    pub pages: usize,
    /// Pages that hold nothing.
    pub pages_free: usize,
    /// Pages that hold prefixes for later requests.
    pub pages_cached: usize,
    /// Recurrent states that are kept for later requests.
    pub snapshots: usize,
    /// Bytes read from disk for experts since the model was opened.
    pub expert_bytes_read: u64,
}

/// Counters of the expert store that requests take differences of.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) requests: u64,
    pub(crate) hits: u64,
    pub(crate) bytes_read: u64,
    pub(crate) read_wait_us: u64,
}

impl Counters {
    pub(crate) fn of(stats: &StoreStats) -> Self {
        let StoreStats { requests, hits, bytes_read, read_wait_us, .. } = *stats;
        Self { requests, hits, bytes_read, read_wait_us }
    }

    /// The difference from `earlier`.
    pub(crate) fn since(&self, earlier: &Counters) -> Counters {
        Counters {
            requests: self.requests - earlier.requests,
            hits: self.hits - earlier.hits,
            bytes_read: self.bytes_read - earlier.bytes_read,
            read_wait_us: self.read_wait_us - earlier.read_wait_us,
        }
    }
}
