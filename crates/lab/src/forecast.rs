//! `plan`: will a model run here, and how fast, before it is loaded or even downloaded.
//!
//! The forecast of a decoded token, layer by layer:
//!
//! ```text
//! layer = max(drive(m, compute), dense + burst(m (1 - p)) + expert, compute)        m misses, binomial with the hit rate
//! layer = max(dense + drive(m, experts) + expert, compute)                          without lookahead
//! token = all layers + head
//! ```
//!
//! With lookahead the drive works all the time, on what a layer asks for and on what the next one is guessed to; a share p of
//! the misses is guessed, the others are read when the router has spoken. Without it reads begin only then.
//!
//! `burst(m)` is measured here: m records of the size of an expert at once, from the model's own files or from a temporary
//! one. `drive(m, c)` is the time for m records where the processor computes for the first c of it: what the drive gives
//! then, beside threads that read memory, is measured apart. The times of the dense part and of an expert are measured with the model's own shapes and formats on matrices that
//! no cache holds. Nothing of the model is loaded. `docs/benchmarking.md` compares forecasts with measurements.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engine::door::{ModelSizes, Opened, ResolvedOptions, open_files, open_storage};
use engine::plan::{MemoryPlan, PlanInput};
use engine::{EngineOptions, system};
use kernels_cpu::{CpuBackend, CpuOptions};
use models::layout::Tier;
use models::presets::Preset;
use models::tiers::QuantTiers;
use ops::{
    Attention, Backend, Batch, Combine, DeltaNet, ExpertRows, ExpertWeights, HostMatrix, KvFormat, Norm,
    NormProducts, PAGE_TOKENS, Phase, Rows,
};
use serde::Serialize;
use storage::{AlignedBuf, BLOCK_BYTES, SplitMix64, Storage};

use crate::LabError;
use crate::facts::{Facts, Record, Shape, distinct_records};
use crate::figures::median;
use crate::probe::{self, Deck, DriveProbe, Limit};

/// What is looked at.
#[derive(Clone, Debug)]
pub enum Target {
    /// A model on this machine.
    Model(PathBuf),
    /// A published model that is not here, packed in these formats.
    Preset(Preset, QuantTiers),
}

/// Choices of a forecast beside those of loading.
#[derive(Clone, Debug)]
pub struct ForecastOptions {
    /// Prompt that the prefill is forecast for, tokens.
    pub prompt_tokens: usize,
    /// Where to write a temporary file to measure the drive with, if there is no model on it yet.
    pub disk_dir: PathBuf,
    /// Size of that file, bytes.
    pub probe_file_bytes: u64,
}

/// Hit rates of real text by share of the experts in memory: medians of what engines of the field published for models of
/// 8 to 16 experts out of 128 to 896 with least-recently-used or similar caches (Qwen3 and Qwen3.5 MoE, Kimi Linear,
/// DeepSeek V4 Flash; single points differ by up to 0.2). Between the points: linear in the logarithm of the share.
const TYPICAL_HITS: [(f64, f64); 6] =
    [(0.03, 0.31), (0.06, 0.56), (0.125, 0.62), (0.25, 0.72), (0.5, 0.83), (1.0, 1.0)];
/// Share of the experts read ahead that are then asked for: the middle of what engines of the field published (0.53 to 0.89).
const GUESSES_RIGHT: f64 = 0.75;
/// More slots have stopped to pay when twice as many gain less than this.
const KNEE_GAIN: f64 = 1.10;
/// The knee is looked for in steps of this share of a budget: 1/20.
const KNEE_STEP_SHARE: u64 = 20;
/// Enough of them for any model: 1.05^400 is beyond 10^8.
const KNEE_STEPS_MAX: usize = 400;
/// Matrices are measured on so much memory that no cache holds them.
const UNCACHED_BYTES: usize = 128 << 20;
/// One measurement of the drive.
const DRIVE_LIMIT: Limit = Limit { time: Duration::from_millis(700), bytes: 2 << 30 };
/// Context that attention is measured at, tokens.
const ATTENTION_TOKENS: usize = 128;
/// tokenizer.json of the family, which a preset's plan leaves room for.
const PRESET_TOKENIZER_JSON_BYTES: u64 = 13 << 20;
/// Budgets printed at most.
const BUDGETS_MAX: usize = 10;

/// Hit rate to expect when every expert is as likely as any other: the worst case.
pub fn uniform_hit_rate(share: f64) -> f64 {
    share.clamp(0.0, 1.0)
}

/// Hit rate to expect of real text; see [`TYPICAL_HITS`].
pub fn typical_hit_rate(share: f64) -> f64 {
    let share = share.clamp(0.0, 1.0);
    let (first, first_hits) = TYPICAL_HITS[0];
    let mut hits = first_hits * share / first;
    for pair in TYPICAL_HITS.windows(2) {
        let [(from, from_hits), (to, to_hits)] = [pair[0], pair[1]];
        if share > from {
            let part = ((share / from).ln() / (to / from).ln()).min(1.0);
            hits = from_hits + part * (to_hits - from_hits);
        }
    }
    hits.max(uniform_hit_rate(share))
}

/// What is expected of one number of slots and one hit rate.
#[derive(Copy, Clone, Debug, Serialize)]
pub struct Expected {
    /// Share of expert requests that are in memory.
    pub hit_rate: f64,
    /// Expert bytes read for a token.
    pub expert_bytes_per_token: f64,
    /// Time that a token's reads take, layer by layer.
    pub disk_time_s: f64,
    /// Time of a token.
    pub token_time_s: f64,
    /// Decode.
    pub decode_tokens_per_s: f64,
}

/// What is expected of a budget.
#[derive(Copy, Clone, Debug, Serialize)]
pub struct Budget {
    /// Bound on the process, bytes.
    pub memory_bytes: u64,
    /// Expert slots.
    pub slots: usize,
    /// More than is free on this machine now.
    pub beyond_free_memory: bool,
    /// Every expert as likely as any other: the worst case, and what random weights give.
    pub uniform: Expected,
    /// Real text.
    pub typical: Expected,
}

/// What was measured on this machine.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // The fields are the JSON's; docs/benchmarking.md describes each.
pub struct Machine {
    pub threads: usize,
    pub isa: String,
    pub free_memory_bytes: Option<u64>,
    pub drive_measured_on: String,
    pub drive_bytes_per_s: f64,
    /// While all threads read memory.
    pub drive_bytes_per_s_computing: f64,
    pub drive_record_bytes: u64,
    pub drive_depth: usize,
    /// (records at once, seconds until all are there)
    pub drive_bursts_s: Vec<(usize, f64)>,
    pub memory_bytes_per_s: f64,
    /// A token's dense work without the shared experts and the head.
    pub dense_compute_s: f64,
    pub head_compute_s: f64,
    /// The shared experts of a token.
    pub shared_compute_s: f64,
    /// The routed experts of a token.
    pub expert_compute_s: f64,
    /// Multiply-adds per second with as many tokens as an expert of a prompt has.
    pub prefill_products_per_s: BTreeMap<String, f64>,
}

impl Machine {
    /// A token's arithmetic, all of it.
    pub fn compute_s(&self) -> f64 {
        self.dense_compute_s + self.head_compute_s + self.shared_compute_s + self.expert_compute_s
    }
}

/// A forecast.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // As above.
pub struct Forecast {
    pub model: String,
    pub on_disk: bool,
    pub architecture: String,
    pub layers: usize,
    pub experts_per_layer: usize,
    pub experts_per_token: usize,
    pub lossy: Vec<String>,
    pub kv: String,
    pub lookahead: bool,
    pub formats: BTreeMap<String, BTreeSet<String>>,
    pub fits: bool,
    pub memory_budget_bytes: u64,
    pub least_memory_bytes: u64,
    /// Why it does not fit.
    pub reason: Option<String>,
    pub plan: Option<MemoryPlan>,
    pub dense_bytes: u64,
    pub experts_bytes: u64,
    pub bytes_per_expert: u64,
    /// Expert bytes that a token computes with, all of which are read when nothing is cached.
    pub expert_bytes_touched_per_token: f64,
    pub dense_bytes_per_token: f64,
    pub memory_time_s: f64,
    pub machine: Machine,
    /// The budget asked for, if it fits.
    pub asked: Option<Budget>,
    pub prompt_tokens: usize,
    pub prefill_tokens_per_s: Option<f64>,
    pub budgets: Vec<Budget>,
    /// From here on twice the slots gain less than a tenth; for real text.
    pub knee_memory_bytes: Option<u64>,
}

/// Makes a forecast. Takes some seconds, for measurements.
///
/// # Errors
/// Anything wrong with the files or the drive. A budget that is too small is no error: [`Forecast::fits`] says so.
pub fn forecast(
    target: &Target,
    engine_options: &EngineOptions,
    options: &ForecastOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<Forecast, LabError> {
    let (facts, sizes) = facts(target)?;
    let resolved = ResolvedOptions::new(engine_options, &facts.config)?;
    let storage = open_storage(&resolved)?;
    let input = PlanInput::new(&facts.config, sizes, &resolved);
    let machine = measure(target, &facts, storage.as_ref(), engine_options, options, progress)?;
    let (lossy, lookahead) = (&resolved.lossy, resolved.lookahead);
    let model = Model { facts: &facts, machine: &machine, input: &input, lossy, lookahead };
    Ok(model.forecast(target, options))
}

fn facts(target: &Target) -> Result<(Facts, ModelSizes), LabError> {
    match target {
        Target::Model(path) => {
            let opened = Opened::new(path)?;
            Ok((Facts::of(&opened, BLOCK_BYTES)?, opened.sizes(BLOCK_BYTES)?))
        }
        Target::Preset(preset, tiers) => {
            let config = models::read_config(Path::new(preset.name), &preset.config_json(None))?;
            let facts = Facts::of_config(config, tiers, BLOCK_BYTES);
            let sizes = ModelSizes {
                dense_bytes: facts.dense_resident_bytes,
                tokenizer_json_bytes: PRESET_TOKENIZER_JSON_BYTES,
                slot_bytes: facts.slot_bytes,
                expert_count: facts.expert_count,
            };
            Ok((facts, sizes))
        }
    }
}

/// What a forecast is computed from.
struct Model<'a> {
    facts: &'a Facts,
    machine: &'a Machine,
    input: &'a PlanInput<'a>,
    lossy: &'a [String],
    lookahead: bool,
}

impl Model<'_> {
    fn forecast(&self, target: &Target, options: &ForecastOptions) -> Forecast {
        let (facts, config, input) = (self.facts, &self.facts.config, self.input);
        let plan = MemoryPlan::new(input);
        let reason = plan.as_ref().err().map(ToString::to_string);
        let plan = plan.ok();
        let touched = facts.expert_bytes_per_token();
        let dense_bytes_per_token = facts.dense_bytes_per_token();
        let prefill = plan.as_ref().map(|plan| self.prefill_s(plan, options.prompt_tokens));
        Forecast {
            model: match target {
                Target::Model(path) => path.display().to_string(),
                Target::Preset(preset, _) => preset.name.to_string(),
            },
            on_disk: matches!(target, Target::Model(_)),
            architecture: config.family.into(),
            layers: config.num_layers(),
            experts_per_layer: config.experts_max(),
            experts_per_token: config.per_token_max(),
            lossy: self.lossy.to_vec(),
            kv: input.kv.to_string(),
            lookahead: self.lookahead,
            formats: facts.formats(),
            fits: plan.is_some(),
            memory_budget_bytes: input.budget_bytes,
            least_memory_bytes: MemoryPlan::least_budget_bytes(input).unwrap_or_default(),
            reason,
            dense_bytes: facts.dense.iter().map(|dense| dense.bytes).sum(),
            experts_bytes: (facts.expert_bytes() * facts.expert_count as f64) as u64,
            bytes_per_expert: facts.expert_bytes() as u64,
            expert_bytes_touched_per_token: touched,
            dense_bytes_per_token,
            memory_time_s: self.memory_time_s(),
            machine: self.machine.clone(),
            asked: plan.as_ref().map(|plan| self.budget(input.budget_bytes, plan.slots)),
            plan,
            prompt_tokens: options.prompt_tokens,
            prefill_tokens_per_s: prefill.map(|seconds| options.prompt_tokens as f64 / seconds),
            budgets: self.budgets(),
            knee_memory_bytes: self.knee(),
        }
    }

    /// Time that memory takes for all bytes that a token computes with.
    fn memory_time_s(&self) -> f64 {
        let bytes = self.facts.dense_bytes_per_token() + self.facts.expert_bytes_per_token();
        bytes / self.machine.memory_bytes_per_s.max(1.0)
    }

    /// Slots of a budget, if it fits.
    fn slots(&self, budget_bytes: u64) -> Option<usize> {
        let input = PlanInput { budget_bytes, slots: None, ..self.input.clone() };
        MemoryPlan::new(&input).ok().map(|plan| plan.slots)
    }

    fn budget(&self, memory_bytes: u64, slots: usize) -> Budget {
        let share = match self.facts.expert_count {
            0 => 1.0,
            all => slots as f64 / all as f64,
        };
        Budget {
            memory_bytes,
            slots,
            beyond_free_memory: self.machine.free_memory_bytes.is_some_and(|free| memory_bytes > free),
            uniform: self.expected(uniform_hit_rate(share)),
            typical: self.expected(typical_hit_rate(share)),
        }
    }

    /// Sizes that people buy, from the least to the first that holds everything.
    fn budgets(&self) -> Vec<Budget> {
        let mut budgets = Vec::new();
        for exponent in 22..44u32 {
            for memory_bytes in [1u64 << exponent, 3 << (exponent - 1)] {
                let full = budgets.last().is_some_and(|last: &Budget| last.slots >= self.facts.expert_count);
                match self.slots(memory_bytes) {
                    Some(slots) if !full => budgets.push(self.budget(memory_bytes, slots)),
                    _ => {}
                }
            }
        }
        if budgets.len() > BUDGETS_MAX {
            // The sizes between the powers of two go first, then the largest.
            let last = budgets.last().copied();
            budgets.retain(|budget| budget.memory_bytes.is_power_of_two());
            budgets.truncate(BUDGETS_MAX - 1);
            budgets.extend(
                last.filter(|last| budgets.last().is_some_and(|b| b.memory_bytes < last.memory_bytes)),
            );
        }
        budgets
    }

    /// The least budget from which on twice the slots gain little for real text. Looked for from the top: with very few
    /// slots twice as many gain little too.
    fn knee(&self) -> Option<u64> {
        let rate = |slots: usize| {
            let share = slots.min(self.facts.expert_count) as f64 / self.facts.expert_count.max(1) as f64;
            self.expected(typical_hit_rate(share)).decode_tokens_per_s
        };
        let mut memory_bytes = MemoryPlan::least_budget_bytes(self.input).ok()?;
        let mut knee = memory_bytes;
        for _ in 0..KNEE_STEPS_MAX {
            let slots = self.slots(memory_bytes)?;
            let next = memory_bytes + memory_bytes / KNEE_STEP_SHARE;
            if rate(2 * slots) >= KNEE_GAIN * rate(slots) {
                knee = next;
            }
            if slots >= self.facts.expert_count {
                return Some(knee);
            }
            memory_bytes = next;
        }
        None
    }

    fn expected(&self, hit_rate: f64) -> Expected {
        let (config, machine) = (&self.facts.config, self.machine);
        // Layers with experts; the others only compute.
        let (layers, k) = (config.moe_layers() as f64, config.per_token_max());
        let others = config.num_layers() as f64 - layers;
        let expert_s = machine.expert_compute_s / (layers * k as f64).max(1.0);
        let shared_s = machine.shared_compute_s / layers.max(1.0);
        let dense_s = machine.dense_compute_s / (config.num_layers() as f64).max(1.0);
        let computed_s = dense_s + shared_s + k as f64 * expert_s;
        let (mut layer_s, mut reads_s) = (0.0, 0.0);
        for (misses, probability) in binomial(k, 1.0 - hit_rate).into_iter().enumerate() {
            let misses = misses as f64;
            let tail_s = if misses > 0.0 { expert_s } else { 0.0 };
            let reads_end_s = match self.lookahead {
                true => {
                    let late_s = dense_s + self.burst_s(misses * (1.0 - GUESSES_RIGHT)) + tail_s;
                    self.drive_s(misses, computed_s).max(late_s)
                }
                false => dense_s + self.drive_s(misses, computed_s - dense_s) + tail_s,
            };
            layer_s += probability * reads_end_s.max(computed_s);
            reads_s += probability * self.burst_s(misses);
        }
        let token_time_s = (machine.head_compute_s + others * dense_s + layers * layer_s).max(1e-9);
        Expected {
            hit_rate,
            expert_bytes_per_token: (1.0 - hit_rate) * layers * k as f64 * machine.drive_record_bytes as f64,
            disk_time_s: layers * reads_s,
            token_time_s,
            decode_tokens_per_s: 1.0 / token_time_s,
        }
    }

    /// Time that the drive takes for so many records while the processor computes for the first `computed_s` of it.
    fn drive_s(&self, records: f64, computed_s: f64) -> f64 {
        let machine = self.machine;
        let alone_s = machine.drive_record_bytes as f64 / machine.drive_bytes_per_s.max(1.0);
        // Computing reads memory for a part of its time only.
        let memory_share = (self.memory_time_s() / machine.compute_s().max(1e-9)).min(1.0);
        let kept =
            (machine.drive_bytes_per_s_computing / machine.drive_bytes_per_s.max(1.0)).clamp(0.01, 1.0);
        let beside_s = alone_s / (1.0 - memory_share * (1.0 - kept));
        match records * beside_s <= computed_s {
            true => records * beside_s,
            false => computed_s + (records - computed_s / beside_s) * alone_s,
        }
    }

    /// Time until `records` records that are asked for at once are there: between the numbers that were measured.
    fn burst_s(&self, records: f64) -> f64 {
        let mut from = (0.0, 0.0);
        for &(to, seconds) in &self.machine.drive_bursts_s {
            let to = to as f64;
            if records <= to {
                return from.1 + (records - from.0) / (to - from.0).max(1.0) * (seconds - from.1);
            }
            from = (to, seconds);
        }
        // Beyond the last: in proportion.
        from.1 * records / from.0.max(1.0)
    }

    /// Time of a prompt: each expert that any token chose is read once a layer and chunk. Unless everything is resident a
    /// pass over all layers finds nothing in a least-recently-used cache.
    fn prefill_s(&self, plan: &MemoryPlan, tokens: usize) -> f64 {
        let (config, machine) = (&self.facts.config, self.machine);
        let layers = config.moe_layers() as f64;
        let (k, all) = (config.per_token_max() as f64, config.experts_max() as f64);
        let time = |shape: Shape| {
            let rate = machine.prefill_products_per_s.get(shape.format.name()).copied();
            rate.map_or(0.0, |rate| shape.weights() / rate.max(1.0))
        };
        let dense: f64 = self.facts.body().map(time).sum();
        let experts: f64 = self.facts.experts.iter().flatten().copied().map(time).sum();
        let experts = experts * k / layers.max(1.0);
        let (mut seconds, mut left) = (self.facts.head().map_or(0.0, time), tokens);
        while left > 0 {
            let chunk = left.min(plan.chunk_tokens.max(1));
            let chosen = all * (1.0 - (1.0 - k / all.max(1.0)).powf(chunk as f64));
            let missing = if plan.slots >= plan.expert_count { 0.0 } else { chosen };
            let reads = missing * machine.drive_record_bytes as f64 / machine.drive_bytes_per_s.max(1.0);
            let (dense_s, experts_s) = (chunk as f64 * dense, chunk as f64 * experts);
            seconds += match self.lookahead {
                true => (layers * reads).max(dense_s + layers * experts_s),
                false => dense_s + layers * reads.max(experts_s),
            };
            left -= chunk;
        }
        seconds
    }
}

/// Probabilities of 0 to `n` misses of `n` independent requests.
fn binomial(n: usize, miss: f64) -> Vec<f64> {
    let mut probabilities = vec![1.0];
    for _ in 0..n {
        let mut next = vec![0.0; probabilities.len() + 1];
        for (misses, probability) in probabilities.iter().enumerate() {
            next[misses] += probability * (1.0 - miss);
            next[misses + 1] += probability * miss;
        }
        probabilities = next;
    }
    probabilities
}

fn measure(
    target: &Target,
    facts: &Facts,
    storage: &dyn Storage,
    engine_options: &EngineOptions,
    options: &ForecastOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<Machine, LabError> {
    let free_memory_bytes = system::available_memory_bytes();
    let threads = engine_options.threads.unwrap_or_else(system::cores);
    progress("measuring the drive");
    let memory_bytes = 8 * UNCACHED_BYTES
        .min(free_memory_bytes.map_or(usize::MAX, |free| usize::try_from(free / 32).unwrap_or(usize::MAX)));
    let drive = Drive::measure(target, facts, storage, options, (threads, memory_bytes))?;
    progress("measuring memory and kernels");
    let memory = probe::memory_rates(threads, memory_bytes)?;
    let backend = CpuBackend::new(CpuOptions { threads, isa: engine_options.isa })
        .map_err(engine::EngineError::from)?;
    let (threads, isa) = (backend.threads(), backend.isa().to_string());
    let mut compute = Compute { backend, facts, kv: engine_options.kv() };
    let [dense_compute_s, shared_compute_s, head_compute_s] = compute.dense_s();
    Ok(Machine {
        threads,
        isa,
        free_memory_bytes,
        drive_measured_on: drive.measured_on,
        drive_bytes_per_s: drive.bytes_per_s,
        drive_bytes_per_s_computing: drive.bytes_per_s_computing,
        drive_record_bytes: drive.record_bytes,
        drive_depth: drive.depth,
        drive_bursts_s: drive.bursts_s,
        memory_bytes_per_s: median(&memory),
        dense_compute_s,
        head_compute_s,
        shared_compute_s,
        expert_compute_s: compute.experts_s(),
        prefill_products_per_s: compute.prefill_rates(options.prompt_tokens),
    })
}

/// What the drive gives for experts of this model.
struct Drive {
    measured_on: String,
    bytes_per_s: f64,
    bytes_per_s_computing: f64,
    record_bytes: u64,
    depth: usize,
    bursts_s: Vec<(usize, f64)>,
}

impl Drive {
    fn measure(
        target: &Target,
        facts: &Facts,
        storage: &dyn Storage,
        options: &ForecastOptions,
        memory: (usize, usize),
    ) -> Result<Self, LabError> {
        match target {
            Target::Model(path) => {
                let opened = Opened::new(path)?;
                let files = open_files(&opened.checkpoint, storage)?;
                let deck = Deck::new(distinct_records(&opened, &files), 1);
                if deck.is_empty() {
                    return Ok(Self::unused());
                }
                Self::measure_deck("the model's own files".into(), deck, facts, storage, memory)
            }
            Target::Preset(..) => {
                let file = ProbeFile::write(&options.disk_dir, options.probe_file_bytes)?;
                let id = storage.open(&file.path)?;
                let record = |at: u64| -> Record { vec![(id, at * facts.slot_bytes, facts.slot_bytes)] };
                let records = options.probe_file_bytes / facts.slot_bytes.max(1);
                let deck = Deck::new((0..records).map(record).collect(), 1);
                let measured_on = format!("a temporary file in {}", options.disk_dir.display());
                Self::measure_deck(measured_on, deck, facts, storage, memory)
            }
        }
    }

    /// Of a model without experts, of which nothing is read while it runs.
    fn unused() -> Self {
        let measured_on = "nothing: the model has no experts".into();
        let (bytes_per_s, bytes_per_s_computing) = (0.0, 0.0);
        Self {
            measured_on,
            bytes_per_s,
            bytes_per_s_computing,
            record_bytes: 0,
            depth: 0,
            bursts_s: Vec::new(),
        }
    }

    fn measure_deck(
        measured_on: String,
        mut deck: Deck,
        facts: &Facts,
        storage: &dyn Storage,
        (threads, memory_bytes): (usize, usize),
    ) -> Result<Self, LabError> {
        let depth = facts.config.per_token_max().max(1);
        let slot_bytes = usize::try_from(facts.slot_bytes).unwrap_or(usize::MAX);
        let mut bufs = AlignedBuf::many(depth, slot_bytes)?;
        bufs.iter_mut().for_each(|buf| buf.fill(1));
        let mut probe = DriveProbe { storage, deck: &mut deck };
        // A drive that has slept gives less at first.
        probe.steady(&mut bufs, DRIVE_LIMIT)?;
        let steady = probe.steady(&mut bufs, DRIVE_LIMIT)?;
        let bytes_per_s_computing =
            probe::drive_while_computing(threads, memory_bytes, &mut probe, &mut bufs, DRIVE_LIMIT)?;
        let mut bursts_s = Vec::new();
        let mut sizes = vec![depth, depth.div_ceil(2), 1];
        sizes.dedup();
        for size in sizes {
            bufs.truncate(size);
            if let Some(seconds) = probe.bursts(&mut bufs, DRIVE_LIMIT)? {
                bursts_s.insert(0, (size, seconds));
            }
        }
        let record_bytes = steady.bytes / steady.reads.max(1);
        let bytes_per_s = steady.bytes_per_s();
        Ok(Self { measured_on, bytes_per_s, bytes_per_s_computing, record_bytes, depth, bursts_s })
    }
}

/// A file of random bytes that is gone when it is dropped.
struct ProbeFile {
    path: PathBuf,
}

impl ProbeFile {
    fn write(dir: &Path, bytes: u64) -> Result<Self, LabError> {
        let path = dir.join(format!("flash-moe-probe-{}.tmp", std::process::id()));
        let failed = |source| LabError::ProbeFile { path: path.clone(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        if let Some(free) = storage::free_disk_bytes(dir).filter(|free| bytes > *free) {
            return Err(LabError::ProbeFileTooLarge {
                dir: dir.into(),
                needed_bytes: bytes,
                free_bytes: free,
            });
        }
        let mut file = File::create(&path).map_err(failed)?;
        let probe = Self { path: path.clone() };
        let mut random = SplitMix64::new(1);
        let mut block = vec![0u8; 1 << 20];
        let mut left = bytes;
        while left > 0 {
            // What a drive could compress would not be measured.
            block.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&random.next_u64().to_le_bytes()));
            let len = left.min(block.len() as u64);
            file.write_all(&block[..len as usize]).map_err(failed)?;
            left -= len;
        }
        file.sync_all().map_err(failed)?;
        Ok(probe)
    }
}

impl Drop for ProbeFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Times of a model's ops on matrices that no cache holds.
struct Compute<'a> {
    backend: CpuBackend,
    facts: &'a Facts,
    kv: KvFormat,
}

impl Compute<'_> {
    /// One token's dense work: of the layers without the shared experts, of the shared experts, of the head.
    fn dense_s(&mut self) -> [f64; 3] {
        let mut counts: BTreeMap<(Shape, bool), usize> = BTreeMap::new();
        let matrices = self.facts.dense.iter().filter(|dense| dense.shape.rows * dense.shape.cols > 0);
        let body = matrices.filter(|dense| matches!(dense.tier, Tier::Dense | Tier::Router));
        for dense in body {
            *counts.entry((dense.shape, dense.shared)).or_default() += 1;
        }
        let head_s = self.facts.head().map_or(0.0, |head| self.matvec_s(head));
        let (mut dense_s, mut shared_s) = (self.small_ops_s(), 0.0);
        for ((shape, shared), count) in counts {
            let seconds = count as f64 * self.matvec_s(shape);
            *(if shared { &mut shared_s } else { &mut dense_s }) += seconds;
        }
        [dense_s, shared_s, head_s]
    }

    /// One product of a matrix of this shape with one token.
    fn matvec_s(&mut self, shape: Shape) -> f64 {
        let copies = copies(shape.bytes());
        let matrices: Vec<_> = (0..copies).filter_map(|_| probe::random_matrix(shape)).collect();
        let matrices: Vec<_> =
            matrices.into_iter().filter_map(|host| self.backend.matrix(host).ok()).collect();
        if matrices.is_empty() {
            return 0.0;
        }
        let x = self.vector(shape.cols);
        let (weight, mut h, mut out) =
            (self.vector(shape.cols), self.vector(shape.cols), self.vector(shape.rows));
        let backend = &mut self.backend;
        let pass = undisturbed_seconds(|| {
            for w in &matrices {
                let norm = Norm { weight: &weight, eps: 1e-6, dim: shape.cols };
                let products = [(w, &mut out)];
                backend.norm_products(NormProducts { x: &x, norm, n: 1, h: &mut h, products });
            }
        });
        pass / matrices.len() as f64
    }

    /// All routed experts of one token.
    fn experts_s(&mut self) -> f64 {
        let mut counts: BTreeMap<[Shape; 3], usize> = BTreeMap::new();
        self.facts.experts.iter().for_each(|parts| *counts.entry(*parts).or_default() += 1);
        let k = self.facts.config.per_token_max() as f64;
        counts.into_iter().map(|(parts, layers)| layers as f64 * k * self.expert_s(parts)).sum()
    }

    fn expert_s(&mut self, parts: [Shape; 3]) -> f64 {
        let bytes: f64 = parts.iter().map(Shape::bytes).sum();
        let expert = |_| -> Option<[HostMatrix; 3]> {
            let [gate, up, down] = parts.map(probe::random_matrix);
            Some([gate?, up?, down?])
        };
        let experts: Vec<_> = (0..copies(bytes)).filter_map(expert).collect();
        if experts.is_empty() {
            return 0.0;
        }
        let x = self.vector(parts[0].cols);
        let mut out = self.vector(parts[2].rows);
        let backend = &mut self.backend;
        let pass = undisturbed_seconds(|| {
            for [gate, up, down] in &experts {
                let weights = ExpertWeights { gate: gate.view(), up: up.view(), down: down.view() };
                backend.experts(&[ExpertRows { weights, x_rows: &[0], out_rows: &[0] }], &x, &mut out);
            }
        });
        pass / experts.len() as f64
    }

    fn vector(&mut self, len: usize) -> <CpuBackend as Backend>::Buffer {
        let mut x = self.backend.buffer(len).expect("a vector of one token");
        self.backend.write(&mut x, 0, &probe::random_values(len));
        x
    }

    /// What is no product with a weight matrix, for all layers of one token.
    fn small_ops_s(&mut self) -> f64 {
        let config = &self.facts.config;
        let (linear, full) = (config.delta_net().count() as f64, config.attention_layers() as f64);
        let layers = config.num_layers() as f64;
        layers * self.norms_s() + linear * self.delta_net_s() + full * self.attention_s()
    }

    /// Two norms, two additions and the sum of the experts.
    fn norms_s(&mut self) -> f64 {
        let (hidden, k) = (self.facts.config.hidden_size, self.facts.config.per_token_max());
        let [mut x, y, weight, mut out] = [0; 4].map(|_| self.vector(hidden));
        let routed = self.vector(hidden * k);
        let weights = vec![1.0 / k as f32; k];
        let backend = &mut self.backend;
        undisturbed_seconds(|| {
            for _ in 0..2 {
                let norm = Norm { weight: &weight, eps: 1e-6, dim: hidden };
                backend.norm_products(NormProducts { x: &x, norm, n: 1, h: &mut out, products: [] });
            }
            backend.add(&y, hidden, &mut x);
            let (weights, routed, shared) = (&weights[..], &routed, Some(&y));
            backend.combine(Combine { weights, routed, shared, n: 1, k_len: k, dim: hidden, x: &mut out });
        })
    }

    fn delta_net_s(&mut self) -> f64 {
        let Some(shape) = self.facts.config.delta_net().next().copied() else { return 0.0 };
        let (channels, values) = (shape.conv_channels(), shape.value_len());
        let slots = copies(4.0 * shape.state_len() as f64).min(64);
        let (mut states, mut conv_states) =
            (self.vector(slots * shape.state_len()), self.vector(slots * channels * shape.conv_kernel));
        let [u, conv] = [channels, channels * shape.conv_kernel].map(|len| self.vector(len));
        let [a, b, a_neg, dt_bias] = [shape.value_heads; 4].map(|len| self.vector(len));
        let [mut qkv, mut out] = [channels, values].map(|len| self.vector(len));
        let backend = &mut self.backend;
        let pass = undisturbed_seconds(|| {
            for slot in 0..slots {
                backend.delta_net(DeltaNet {
                    shape: &shape,
                    batch: &Batch { n: 1, rows: &[one_row(0, slot)], pages: &[] },
                    u: &u,
                    conv: &conv,
                    b: &b,
                    a: &a,
                    a_neg: &a_neg,
                    dt_bias: &dt_bias,
                    conv_states: &mut conv_states,
                    states: &mut states,
                    qkv: &mut qkv,
                    out: &mut out,
                });
            }
        });
        pass / slots.max(1) as f64
    }

    fn attention_s(&mut self) -> f64 {
        let Some(shape) = self.facts.config.attention().next().map(|attention| attention.shape) else {
            return 0.0;
        };
        let (keys, queries) = (shape.kv_heads * shape.head_dim, shape.heads * shape.head_dim);
        let gated = shape.heads * shape.query_len();
        let [mut qg, mut k, mut v, mut out] = [gated, keys, keys, queries].map(|len| self.vector(len));
        let norm = self.vector(shape.head_dim);
        let pages: Vec<u32> = (0..ATTENTION_TOKENS.div_ceil(PAGE_TOKENS) as u32).collect();
        let pool = |backend: &mut CpuBackend| backend.kv_pool(self.kv, &shape, pages.len());
        let (Ok(mut k_pool), Ok(mut v_pool)) = (pool(&mut self.backend), pool(&mut self.backend)) else {
            return 0.0;
        };
        let (backend, pos) = (&mut self.backend, ATTENTION_TOKENS - 1);
        let rows = Rows { pages: (0, pages.len() as u32), ..one_row(pos, 0) };
        undisturbed_seconds(|| {
            backend.attention(Attention {
                shape: &shape,
                batch: &Batch { n: 1, rows: &[rows], pages: &pages },
                biases: None,
                norms: Some([&norm, &norm]),
                rope_factors: None,
                qg: &mut qg,
                k: &mut k,
                v: &mut v,
                keys: &mut k_pool,
                values: &mut v_pool,
                out: &mut out,
            });
        })
    }

    /// Multiply-adds per second by format, with the tokens of a prompt that share an expert.
    fn prefill_rates(&mut self, prompt_tokens: usize) -> BTreeMap<String, f64> {
        let config = &self.facts.config;
        let (k, all) = (config.per_token_max() as f64, config.experts_max() as f64);
        let chosen = all * (1.0 - (1.0 - k / all.max(1.0)).powf(prompt_tokens as f64));
        let per_expert = (prompt_tokens as f64 * k / chosen.max(1.0)).round().max(1.0) as usize;
        let mut shapes: BTreeMap<String, (Shape, usize)> = BTreeMap::new();
        for shape in self.facts.body().chain(self.facts.head()) {
            shapes.insert(shape.format.to_string(), (shape, prompt_tokens.min(128)));
        }
        for shape in self.facts.experts.iter().flatten() {
            shapes.insert(shape.format.to_string(), (*shape, per_expert));
        }
        let backend = &mut self.backend;
        let rate = |(format, (shape, tokens)): (String, (Shape, usize))| {
            (format, probe::products_per_s(backend, shape, tokens))
        };
        shapes.into_iter().map(rate).collect()
    }
}

/// A decoding row.
fn one_row(pos: usize, slot: usize) -> Rows {
    let (pos, state) = (pos as u32, slot as u32);
    Rows { first: 0, len: 1, pos, phase: Phase::Decode, chunked: false, state, keep: None, pages: (0, 0) }
}

/// How many of something no cache holds.
fn copies(bytes: f64) -> usize {
    ((UNCACHED_BYTES as f64 / bytes.max(1.0)).ceil() as usize).clamp(1, 1024)
}

/// Longest that one op is measured, and the least number of passes over its copies.
const OP_TIME: Duration = Duration::from_millis(250);
const OP_PASSES_MIN: usize = 5;

/// Time of the pass that was disturbed least, the first left out: what others do to the machine meanwhile is no part of a
/// forecast.
fn undisturbed_seconds(mut work: impl FnMut()) -> f64 {
    work();
    let (began, mut best) = (Instant::now(), f64::INFINITY);
    let mut passes = 0;
    while passes < OP_PASSES_MIN || began.elapsed() < OP_TIME {
        let started = Instant::now();
        work();
        best = best.min(started.elapsed().as_secs_f64());
        passes += 1;
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hit_rates_rise_with_the_share_and_end_at_1() {
        assert_eq!(typical_hit_rate(0.0), 0.0);
        assert!((typical_hit_rate(0.125) - 0.62).abs() < 1e-9);
        assert!((typical_hit_rate(1.0) - 1.0).abs() < 1e-9);
        let mut before = 0.0;
        for share in (0..=100).map(|percent| f64::from(percent) / 100.0) {
            let hits = typical_hit_rate(share);
            assert!(hits >= before && hits >= uniform_hit_rate(share), "{share}: {hits} after {before}");
            before = hits;
        }
    }

    #[test]
    fn misses_are_binomial() {
        assert_eq!(binomial(2, 0.5), [0.25, 0.5, 0.25]);
        assert_eq!(binomial(3, 0.0), [1.0, 0.0, 0.0, 0.0]);
        let mean: f64 = binomial(8, 0.3).iter().enumerate().map(|(misses, p)| misses as f64 * p).sum();
        assert!((mean - 2.4).abs() < 1e-12);
    }
}
