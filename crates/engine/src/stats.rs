//! What a run cost, in the words and units of the command-line contract.

use serde::Serialize;

/// Statistics of one generation. Times in seconds, sizes in bytes, rates per second.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RunStats {
    /// Tokens of the prompt that were computed.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub generated_tokens: usize,
    /// From the start of the request to the first token.
    pub time_to_first_token_s: f64,
    /// Prompt tokens per second.
    pub prefill_tokens_per_s: f64,
    /// Generated tokens per second after the first; 0 when there were fewer than two.
    pub decode_tokens_per_s: f64,
    /// Bytes read from disk for experts in prefill.
    pub prefill_expert_bytes_read: u64,
    /// Bytes read from disk for experts in decode.
    pub decode_expert_bytes_read: u64,
    /// Expert bytes read per decoded token.
    pub expert_bytes_per_token: f64,
    /// Share of expert requests in decode that were in memory.
    pub hit_rate: f64,
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
    /// Why reads went through the page cache although direct ones were asked for.
    pub io_fallback: Option<String>,
    /// Number format of keys and values.
    pub kv: String,
    /// Lossy options that were on.
    pub lossy: Vec<String>,
}
