//! The memory plan: who gets how much of the budget, decided before anything is loaded.
//!
//! Dense weights, keys and values, the running sequences' recurrent states and the process itself
//! are given. What remains is split between the activations of a prompt chunk (a larger chunk reads
//! each expert less often in prefill), recurrent states to go back to, and expert slots (more slots
//! read less often in decode).

use models::{ModelSpec, ScratchRows};
use ops::{KvFormat, PAGE_TOKENS};

use crate::backend::{ThisBackend, backend};
use crate::error::Shortfall;
use crate::options::ResolvedOptions;
use crate::{EngineError, Isa};

/// The binary, its heap and thread stacks, measured without a model.
const PROCESS_BYTES: u64 = 24 << 20;
/// A tokenizer in memory against its tokenizer.json: measured 6 to 8 times on vocabularies from 8 k
/// to 250 k entries.
const TOKENIZER_FACTOR: u64 = 8;
/// Most bytes that a sequence's sampler keeps for each entry of the vocabulary: candidates, weights,
/// counts, a row of logits.
const SAMPLING_BYTES_PER_ENTRY: u64 = 24;
/// Text of a prompt, as messages, in a template's hands and rendered, and its ids, for each token.
const PROMPT_BYTES_PER_TOKEN: u64 = 96;
/// A text and its ids against the text: an id of four bytes for each byte, at most.
const TEXT_FACTOR: u64 = 5;
/// Longest prompt chunk chosen by itself; longer ones were not seen to read less.
const CHUNK_TOKENS_MAX: usize = 4096;
/// Shortest prompt chunk before the plan gives up slots beyond the minimum.
const CHUNK_TOKENS_MIN: usize = 16;
/// Share of what remains that a chunk's activations may take: 1/8.
const CHUNK_SHARE: u64 = 8;
/// Pages beyond those of the sequences: a prefix that ends within a page is copied from one.
const SPARE_PAGES: usize = 2;
/// Default bound on recurrent states that are kept.
const SNAPSHOTS_MAX: u64 = 16;
/// Share of what remains that they may take: 1/32.
const SNAPSHOT_SHARE: u64 = 32;

/// Input of the memory plan.
#[derive(Clone, Debug)]
pub struct PlanInput<'a> {
    /// Hyper-parameters.
    pub config: &'a ModelSpec,
    /// Whole budget, bytes.
    pub budget_bytes: u64,
    /// Sizes from the model's files.
    pub sizes: ModelSizes,
    /// Context, tokens.
    pub ctx: usize,
    /// Number format of keys and values.
    pub kv: KvFormat,
    /// Requests that run at once.
    pub parallel: usize,
    /// Tokens for whose keys and values there is room.
    pub kv_tokens: usize,
    /// A text that is kept with its tokens, bytes.
    pub text_bytes: u64,
    /// Fixed number of recurrent states to go back to, if the caller wants one.
    pub snapshots: Option<usize>,
    /// Whether prefixes go to disk.
    pub session_cache: bool,
    /// Compute threads.
    pub threads: usize,
    /// Instruction set.
    pub isa: Option<Isa>,
    /// Fixed number of slots, if the caller wants one.
    pub slots: Option<usize>,
    /// Fixed chunk, if the caller wants one.
    pub chunk_tokens: Option<usize>,
}

/// Sizes of a model, from its files or from a preset.
#[derive(Copy, Clone, Debug)]
pub struct ModelSizes {
    /// Dense weights as they will lie in memory, bytes.
    pub dense_bytes: u64,
    /// Size of tokenizer.json, or of the one that the vocabulary would make, bytes.
    pub tokenizer_json_bytes: u64,
    /// Memory of one slot, bytes.
    pub slot_bytes: u64,
    /// Routed experts in the model.
    pub expert_count: usize,
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
    /// Keys, values and recurrent states of all sequences, bytes.
    pub state_bytes: u64,
    /// Activations of one pass, bytes.
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
    /// Requests that run at once.
    pub parallel: usize,
    /// Pages of keys and values.
    pub pages: usize,
    /// Recurrent states, of running sequences and to go back to; 0 in models that have none.
    pub states: usize,
}

pub(crate) fn kv_name<S: serde::Serializer>(kv: &KvFormat, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kv.name())
}

impl<'a> PlanInput<'a> {
    /// Input of a plan, whether the model is loaded after it or not.
    pub fn new(config: &'a ModelSpec, sizes: ModelSizes, options: &ResolvedOptions) -> Self {
        Self {
            config,
            budget_bytes: options.memory_bytes,
            sizes,
            ctx: options.ctx,
            kv: options.kv,
            parallel: options.parallel,
            kv_tokens: options.kv_tokens,
            text_bytes: options.text_bytes,
            snapshots: options.snapshots,
            session_cache: options.session_cache.is_some(),
            threads: options.threads,
            isa: options.isa,
            slots: options.slots,
            chunk_tokens: options.chunk_tokens,
        }
    }

    /// Room for the rows of a pass whose prompt part is at most `chunk_tokens` long.
    pub(crate) fn scratch_rows(parallel: usize, chunk_tokens: usize) -> ScratchRows {
        // A prompt that has no company goes through all layers at once.
        let parked_max = if parallel > 1 { chunk_tokens } else { 0 };
        ScratchRows { pass_max: chunk_tokens + parallel - 1, parked_max }
    }
}

/// Makes a plan: its input, and a back-end that tells footprints.
struct Planner<'a> {
    input: &'a PlanInput<'a>,
    backend: ThisBackend,
}

impl<'a> Planner<'a> {
    fn new(input: &'a PlanInput<'a>) -> Result<Self, EngineError> {
        Ok(Self { input, backend: backend(input.threads, input.isa)? })
    }

    /// Bytes of one recurrent state; 0 if the model has none.
    fn recurrent_bytes(&self) -> u64 {
        self.input.config.recurrent_state_bytes()
    }

    fn pages(&self) -> usize {
        let PlanInput { kv_tokens, ctx, parallel, .. } = *self.input;
        kv_tokens.max(ctx).div_ceil(PAGE_TOKENS) + parallel + SPARE_PAGES - 1
    }

    /// Keys, values and `states` recurrent states; pages on their way to the disk.
    fn state_bytes(&self, states: usize) -> u64 {
        let page_bytes = PAGE_TOKENS as u64 * self.input.config.kv_bytes_per_token(self.input.kv);
        let copies = if self.input.session_cache { 2 } else { 0 };
        self.pages() as u64 * page_bytes
            + states as u64 * self.recurrent_bytes()
            + copies * self.recurrent_bytes().max(page_bytes)
    }

    /// States that running sequences need, and the requested snapshots.
    fn states_min(&self) -> usize {
        match self.recurrent_bytes() {
            0 => 0,
            _ => self.input.parallel + self.input.snapshots.unwrap_or(0),
        }
    }

    /// States to go back to that a share of what remains pays for.
    fn snapshots_within(&self, room: u64) -> usize {
        let one = self.recurrent_bytes();
        if one == 0 || self.input.snapshots.is_some() {
            return 0;
        }
        // One, if it takes no more than the activations may.
        let least = u64::from(one <= room / CHUNK_SHARE);
        (room / SNAPSHOT_SHARE / one).clamp(least, SNAPSHOTS_MAX) as usize
    }

    fn process_bytes(&self) -> u64 {
        // The process was measured with one.
        let samplers = (self.input.parallel - 1) * self.input.config.vocab_size;
        let tokenizer = TOKENIZER_FACTOR * self.input.sizes.tokenizer_json_bytes;
        let prompts = (self.input.parallel * self.input.ctx) as u64 * PROMPT_BYTES_PER_TOKEN;
        let text = self.input.text_bytes.saturating_mul(TEXT_FACTOR);
        let samplers = samplers as u64 * SAMPLING_BYTES_PER_ENTRY;
        (PROCESS_BYTES + tokenizer + samplers + prompts).saturating_add(text)
    }

    fn slots_min(&self) -> usize {
        let input = self.input;
        input.slots.unwrap_or(input.config.per_token_max()).min(input.sizes.expert_count)
    }

    fn slots_min_bytes(&self) -> u64 {
        self.slots_min() as u64 * self.input.sizes.slot_bytes
    }

    fn fixed_bytes(&self) -> u64 {
        let given = self.input.sizes.dense_bytes + self.state_bytes(self.states_min());
        self.process_bytes().saturating_add(given)
    }

    fn least_bytes(&self) -> u64 {
        let chunk = self.input.chunk_tokens.unwrap_or(1).min(self.input.ctx);
        self.fixed_bytes().saturating_add(self.slots_min_bytes() + self.scratch_bytes(chunk))
    }

    /// Activations of the model and of the back-end's own ops.
    fn scratch_bytes(&self, chunk_tokens: usize) -> u64 {
        let PlanInput { config, kv, parallel, .. } = *self.input;
        let rows = PlanInput::scratch_rows(parallel, chunk_tokens);
        let footprint = models::scratch_footprint(&self.backend, config, kv, rows);
        // A footprint that overflows does not fit.
        footprint.map_or(u64::MAX / 4, |footprint| footprint.host_bytes)
    }

    fn chunk_tokens(&self, room: u64) -> usize {
        if let Some(tokens) = self.input.chunk_tokens {
            return tokens.clamp(1, self.input.ctx);
        }
        let mut tokens = CHUNK_TOKENS_MAX.min(self.input.ctx);
        while tokens > CHUNK_TOKENS_MIN && self.scratch_bytes(tokens) > room / CHUNK_SHARE {
            tokens -= tokens.div_ceil(8);
        }
        while tokens > 1 && self.scratch_bytes(tokens) > room {
            tokens /= 2;
        }
        tokens
    }

    fn too_small(&self, least_bytes: u64) -> EngineError {
        EngineError::BudgetTooSmall(Box::new(Shortfall {
            budget_bytes: self.input.budget_bytes,
            least_bytes,
            dense_bytes: self.input.sizes.dense_bytes,
            state_bytes: self.state_bytes(self.states_min()),
            slots_bytes: self.slots_min_bytes(),
            slots: self.slots_min(),
            ctx: self.input.ctx,
            parallel: self.input.parallel,
            kv: self.input.kv,
        }))
    }
}

impl MemoryPlan {
    /// Makes the plan.
    ///
    /// # Errors
    /// [`EngineError::BudgetTooSmall`] with the least that works.
    pub fn new(input: &PlanInput<'_>) -> Result<Self, EngineError> {
        let planner = Planner::new(input)?;
        let (slots_min, slot_bytes) = (planner.slots_min(), input.sizes.slot_bytes);
        let least = planner.least_bytes();
        if least > input.budget_bytes {
            return Err(planner.too_small(least));
        }
        let room = input.budget_bytes - planner.fixed_bytes() - planner.slots_min_bytes();
        let chunk_tokens = planner.chunk_tokens(room);
        let scratch_bytes = planner.scratch_bytes(chunk_tokens);
        let room = room - scratch_bytes;
        let states = planner.states_min() + planner.snapshots_within(room);
        let state_bytes = planner.state_bytes(states);
        let snapshot_bytes = state_bytes - planner.state_bytes(planner.states_min());
        let affordable = (room - snapshot_bytes) / slot_bytes.max(1);
        let slots = input.slots.unwrap_or(slots_min + usize::try_from(affordable).unwrap_or(usize::MAX / 2));
        Ok(Self {
            budget_bytes: input.budget_bytes,
            process_bytes: planner.process_bytes(),
            dense_bytes: input.sizes.dense_bytes,
            state_bytes,
            scratch_bytes,
            slot_bytes,
            slots: slots.min(input.sizes.expert_count),
            expert_count: input.sizes.expert_count,
            chunk_tokens,
            ctx: input.ctx,
            kv: input.kv,
            parallel: input.parallel,
            pages: planner.pages(),
            states,
        })
    }

    /// The least budget that [`MemoryPlan::new`] accepts with this input, whose own budget does not
    /// matter.
    ///
    /// # Errors
    /// [`EngineError::Isa`].
    pub fn least_budget_bytes(input: &PlanInput<'_>) -> Result<u64, EngineError> {
        Ok(Planner::new(input)?.least_bytes())
    }

    /// Slots when the budget changes and every other tier stays as it is: at least `slots_min`, at
    /// most one an expert.
    ///
    /// # Errors
    /// [`EngineError::BudgetTooSmall`] with the least that works.
    pub fn slots_within(&self, budget_bytes: u64, slots_min: usize) -> Result<usize, EngineError> {
        let slots_min = slots_min.min(self.expert_count);
        let rest = self.total_bytes() - self.slots as u64 * self.slot_bytes;
        let slots_bytes = slots_min as u64 * self.slot_bytes;
        if budget_bytes < rest + slots_bytes {
            return Err(EngineError::BudgetTooSmall(Box::new(Shortfall {
                budget_bytes,
                least_bytes: rest + slots_bytes,
                dense_bytes: self.dense_bytes,
                state_bytes: self.state_bytes,
                slots_bytes,
                slots: slots_min,
                ctx: self.ctx,
                parallel: self.parallel,
                kv: self.kv,
            })));
        }
        let slots = (budget_bytes - rest) / self.slot_bytes.max(1);
        Ok(usize::try_from(slots).unwrap_or(usize::MAX).min(self.expert_count).max(slots_min))
    }

    /// Bytes of all tiers together.
    pub fn total_bytes(&self) -> u64 {
        let slots = self.slots as u64 * self.slot_bytes;
        self.process_bytes + self.dense_bytes + self.state_bytes + self.scratch_bytes + slots
    }
}
