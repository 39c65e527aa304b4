//! The memory plan: who gets how much of the budget, decided before anything is loaded.
//!
//! Dense weights, one sequence's state and the process itself are given. What remains is split between the activations of
//! a prompt chunk (a larger chunk reads each expert less often in prefill) and expert slots (more slots read less often in
//! decode).

use kernels_cpu::{CpuBackend, CpuOptions};
use models::{ModelSpec, ScratchRows};
use ops::KvFormat;

use crate::EngineError;
use crate::system::human_bytes;

/// The binary, its heap and thread stacks, measured without a model.
const PROCESS_BYTES: u64 = 24 << 20;
/// A tokenizer in memory against its tokenizer.json: measured 6 to 8 times on vocabularies from 8 k to 250 k entries.
const TOKENIZER_FACTOR: u64 = 8;
/// Longest prompt chunk chosen by itself; longer ones were not seen to read less.
const CHUNK_TOKENS_MAX: usize = 4096;
/// Shortest prompt chunk before the plan gives up slots beyond the minimum.
const CHUNK_TOKENS_MIN: usize = 16;
/// Share of what remains that a chunk's activations may take: 1/8.
const CHUNK_SHARE: u64 = 8;

/// What the plan is made from.
#[derive(Clone, Debug)]
pub struct PlanInput<'a> {
    /// Hyper-parameters.
    pub config: &'a ModelSpec,
    /// Whole budget, bytes.
    pub budget_bytes: u64,
    /// Dense weights as they will lie in memory, bytes.
    pub dense_bytes: u64,
    /// Size of tokenizer.json, bytes.
    pub tokenizer_json_bytes: u64,
    /// Context, tokens.
    pub ctx: usize,
    /// Number format of keys and values.
    pub kv: KvFormat,
    /// Memory of one slot, bytes.
    pub slot_bytes: u64,
    /// Routed experts in the model.
    pub expert_count: usize,
    /// Compute threads.
    pub threads: usize,
    /// Fixed number of slots, if the caller wants one.
    pub slots: Option<usize>,
    /// Fixed chunk, if the caller wants one.
    pub chunk_tokens: Option<usize>,
}

/// Who gets how much.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MemoryPlan {
    /// Whole budget, bytes.
    pub budget_bytes: u64,
    /// The process and its tokenizer, bytes.
    pub process_bytes: u64,
    /// Dense weights, bytes.
    pub dense_bytes: u64,
    /// Key/value caches and recurrent states of one sequence, bytes.
    pub state_bytes: u64,
    /// Activations of one chunk, bytes.
    pub scratch_bytes: u64,
    /// Memory of one expert slot, bytes.
    pub slot_bytes: u64,
    /// Expert slots.
    pub slots: usize,
    /// Routed experts in the model.
    pub expert_count: usize,
    /// Longest prompt chunk, tokens.
    pub chunk_tokens: usize,
    /// Context, tokens.
    pub ctx: usize,
    /// Number format of keys and values.
    #[serde(serialize_with = "kv_name")]
    pub kv: KvFormat,
}

pub(crate) fn kv_name<S: serde::Serializer>(kv: &KvFormat, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kv.name())
}

impl MemoryPlan {
    /// Makes the plan.
    ///
    /// # Errors
    /// [`EngineError::BudgetTooSmall`] with the least that works.
    pub fn new(input: &PlanInput<'_>) -> Result<Self, EngineError> {
        let slots_min = input.slots.unwrap_or(input.config.per_token_max()).min(input.expert_count);
        let fixed = fixed_bytes(input);
        let least = least_bytes(input, fixed, slots_min);
        if least > input.budget_bytes {
            return Err(too_small(input, least, slots_min));
        }
        let room = input.budget_bytes - fixed - slots_min as u64 * input.slot_bytes;
        let chunk_tokens = chunk_tokens(input, room);
        let scratch_bytes = scratch_bytes(input, chunk_tokens);
        let affordable = (room - scratch_bytes) / input.slot_bytes.max(1);
        let slots = input.slots.unwrap_or(slots_min + usize::try_from(affordable).unwrap_or(usize::MAX / 2));
        Ok(Self {
            budget_bytes: input.budget_bytes,
            process_bytes: process_bytes(input),
            dense_bytes: input.dense_bytes,
            state_bytes: state_bytes(input),
            scratch_bytes,
            slot_bytes: input.slot_bytes,
            slots: slots.min(input.expert_count),
            expert_count: input.expert_count,
            chunk_tokens,
            ctx: input.ctx,
            kv: input.kv,
        })
    }

    /// The least budget that [`MemoryPlan::new`] accepts with this input, whose own budget does not matter.
    pub fn least_budget_bytes(input: &PlanInput<'_>) -> u64 {
        let slots_min = input.slots.unwrap_or(input.config.per_token_max()).min(input.expert_count);
        least_bytes(input, fixed_bytes(input), slots_min)
    }

    /// Slots when the budget changes and every other tier stays as it is: at least `slots_min`, at most one an expert.
    ///
    /// # Errors
    /// [`EngineError::BudgetTooSmall`] with the least that works.
    pub fn slots_within(&self, budget_bytes: u64, slots_min: usize) -> Result<usize, EngineError> {
        let slots_min = slots_min.min(self.expert_count);
        let rest = self.total_bytes() - self.slots as u64 * self.slot_bytes;
        let least = rest + slots_min as u64 * self.slot_bytes;
        if budget_bytes < least {
            return Err(EngineError::BudgetTooSmall {
                budget: human_bytes(budget_bytes),
                least: human_bytes(least),
                detail: format!("{slots_min} expert slots, and {} that is loaded", human_bytes(rest)),
                suggestion: format!("{}MiB", least.div_ceil(1 << 20)),
            });
        }
        let slots = (budget_bytes - rest) / self.slot_bytes.max(1);
        Ok(usize::try_from(slots).unwrap_or(usize::MAX).min(self.expert_count).max(slots_min))
    }

    /// What all tiers together take.
    pub fn total_bytes(&self) -> u64 {
        let slots = self.slots as u64 * self.slot_bytes;
        self.process_bytes + self.dense_bytes + self.state_bytes + self.scratch_bytes + slots
    }
}

fn process_bytes(input: &PlanInput<'_>) -> u64 {
    PROCESS_BYTES + TOKENIZER_FACTOR * input.tokenizer_json_bytes
}

fn fixed_bytes(input: &PlanInput<'_>) -> u64 {
    process_bytes(input) + input.dense_bytes + state_bytes(input)
}

fn state_bytes(input: &PlanInput<'_>) -> u64 {
    input.config.state_bytes(input.kv, input.ctx)
}

fn least_bytes(input: &PlanInput<'_>, fixed: u64, slots: usize) -> u64 {
    let chunk = input.chunk_tokens.unwrap_or(1).min(input.ctx);
    fixed + slots as u64 * input.slot_bytes + scratch_bytes(input, chunk)
}

/// Activations of the model and of the back-end's own ops for a chunk.
fn scratch_bytes(input: &PlanInput<'_>, tokens: usize) -> u64 {
    let backend = CpuBackend::new(CpuOptions { threads: input.threads, isa: None });
    let rows = ScratchRows { pass_max: tokens, parked_max: 0 };
    let footprint = models::scratch_footprint(&backend, input.config, input.kv, rows);
    footprint.map_or(u64::MAX, |footprint| footprint.host_bytes)
}

fn chunk_tokens(input: &PlanInput<'_>, room: u64) -> usize {
    if let Some(tokens) = input.chunk_tokens {
        return tokens.clamp(1, input.ctx);
    }
    let most = CHUNK_TOKENS_MAX.min(input.ctx);
    let mut tokens = most;
    while tokens > CHUNK_TOKENS_MIN && scratch_bytes(input, tokens) > room / CHUNK_SHARE {
        tokens -= tokens.div_ceil(8);
    }
    while tokens > 1 && scratch_bytes(input, tokens) > room {
        tokens /= 2;
    }
    tokens
}

fn too_small(input: &PlanInput<'_>, least: u64, slots: usize) -> EngineError {
    let detail = format!(
        "dense weights {}, state for {} tokens (kv {}) {}, {slots} expert slots {}, rest {}",
        human_bytes(input.dense_bytes),
        input.ctx,
        input.kv,
        human_bytes(state_bytes(input)),
        human_bytes(slots as u64 * input.slot_bytes),
        human_bytes(least - input.dense_bytes - state_bytes(input) - slots as u64 * input.slot_bytes),
    );
    EngineError::BudgetTooSmall {
        budget: human_bytes(input.budget_bytes),
        least: human_bytes(least),
        detail,
        suggestion: format!("{}MiB", least.div_ceil(1 << 20)),
    }
}
