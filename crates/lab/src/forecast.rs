//! `plan`: will a model run here, and how fast, before it is loaded or even downloaded.
//!
//! The forecast of a decoded token of each stream, layer by layer:
//!
//! ```text
//! layer = max(drive(m, compute), dense + burst(m (1 - p)) + expert, compute)
//! layer = max(dense + drive(m, experts) + expert, compute)      without lookahead
//! pass  = all layers + head
//! ```
//!
//! m are the misses, binomial with the hit rate. With lookahead the drive works all the time, on
//! what a layer asks for and on what the next one is guessed to; a share p of the misses is
//! guessed, the others are read when the router has spoken. Without it reads begin only then.
//!
//! `burst(m)` is measured here: m records of the size of an expert at once, from the model's own
//! files or from a temporary one. `drive(m, c)` is the time for m records where the processor
//! computes for the first c of it: what the drive gives then, beside threads that read memory, is
//! measured apart. What each kind of layer computes is the time of the real forward pass of a small
//! synthetic model (`stand_in`). Nothing of the model is loaded. `docs/benchmarking.md` compares
//! forecasts with measurements.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use engine::door::{ModelSizes, Opened, ResolvedOptions, open_storage};
use engine::plan::{MemoryPlan, PlanInput};
use engine::{EngineOptions, system};
use kernels_cpu::{CpuBackend, CpuOptions};
use models::presets::Preset;
use models::tiers::QuantTiers;
use serde::Serialize;
use storage::{BLOCK_BYTES, Storage};

use crate::LabError;
use crate::drive::{Drive, Source};
use crate::facts::Facts;
use crate::figures::median;
use crate::layer_costs::{self, LayerCost, PassCost};
use crate::probe;
use crate::stand_in::UNCACHED_BYTES;

/// What is looked at.
#[derive(Clone, Debug)]
pub enum Target {
    /// A model on this machine.
    Model(PathBuf),
    /// A published model that is not here, packed in these formats.
    Preset(Preset, QuantTiers),
    /// A model that is not here, but its headers are.
    Remote(Remote),
}

/// A model that can be downloaded.
#[derive(Clone, Debug)]
pub struct Remote {
    name: String,
    facts: Facts,
    sizes: ModelSizes,
    download_bytes: u64,
    missing_bytes: u64,
}

impl Remote {
    /// A model of that name by its headers, which are not needed any more afterwards; the download has
    /// `download_bytes`, of which `missing_bytes` are not here yet.
    ///
    /// # Errors
    /// Expert records that no slot can take.
    pub fn new(
        name: String,
        opened: &Opened,
        download_bytes: u64,
        missing_bytes: u64,
    ) -> Result<Self, LabError> {
        let (facts, sizes) = (Facts::of(opened, BLOCK_BYTES)?, opened.sizes(BLOCK_BYTES)?);
        Ok(Self { name, facts, sizes, download_bytes, missing_bytes })
    }
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

/// Hit rates of real text by share of the experts in memory: medians of what engines of the field
/// published for models of 8 to 16 experts out of 128 to 896 with least-recently-used or similar
/// caches (Qwen3 and Qwen3.5 MoE, Kimi Linear, DeepSeek V4 Flash; single points differ by up to
/// 0.2). Between the points: linear in the logarithm of the share.
const TYPICAL_HITS: [(f64, f64); 6] =
    [(0.03, 0.31), (0.06, 0.56), (0.125, 0.62), (0.25, 0.72), (0.5, 0.83), (1.0, 1.0)];
/// Share of the experts read ahead that are then asked for: the middle of what engines of the field
/// published (0.53 to 0.89).
const GUESSES_RIGHT: f64 = 0.75;
/// More slots have stopped to pay when twice as many gain less than this.
const KNEE_GAIN: f64 = 1.10;
/// The knee is looked for in steps of this share of a budget: 1/20.
const KNEE_STEP_SHARE: u64 = 20;
/// Enough of them for any model: 1.05^400 is beyond 10^8.
const KNEE_STEPS_MAX: usize = 400;
/// tokenizer.json of the family, which a preset's plan leaves room for.
const PRESET_TOKENIZER_JSON_BYTES: u64 = 13 << 20;
/// Budgets printed at most.
const BUDGETS_MAX: usize = 10;

/// Hit rate to expect when every expert is as likely as any other: the worst case.
pub fn uniform_hit_rate(share: f64) -> f64 {
    share.clamp(0.0, 1.0)
}

/// Hit rate to expect of real text; see `TYPICAL_HITS`.
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
    /// Time that the reads of a pass take, layer by layer.
    pub disk_time_s: f64,
    /// Time of a pass: one token of each stream.
    pub token_time_s: f64,
    /// Decode of one stream.
    pub decode_tokens_per_s: f64,
    /// Decode of all streams together.
    pub total_tokens_per_s: f64,
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
    /// A pass' dense work without the shared experts and the head.
    pub dense_compute_s: f64,
    pub head_compute_s: f64,
    /// The shared experts of a pass.
    pub shared_compute_s: f64,
    /// The routed experts of a pass.
    pub expert_compute_s: f64,
    /// The same by kind of layer, and for a chunk of a prompt.
    pub layer_kinds: Vec<LayerCost>,
}

impl Machine {
    /// A pass' arithmetic, all of it.
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
    /// Streams that decode together.
    pub parallel: usize,
    pub formats: BTreeMap<String, BTreeSet<String>>,
    pub fits: bool,
    pub memory_budget_bytes: u64,
    pub least_memory_bytes: u64,
    /// All files of a model on a hub.
    pub download_bytes: Option<u64>,
    /// Disk that a model takes which is not here yet, and what is free where it would lie.
    pub disk_needed_bytes: Option<u64>,
    pub disk_free_bytes: Option<u64>,
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
    /// Bound on a pass in which a prompt rides along with streams that decode.
    pub pass_time_max_s: f64,
    /// What such a pass takes at least, for real text: one token of each stream and one layer of
    /// the prompt's shortest part. Above the bound, no stream can be promised it.
    pub pass_time_least_s: Option<f64>,
    pub budgets: Vec<Budget>,
    /// From here on twice the slots gain less than a tenth; for real text.
    pub knee_memory_bytes: Option<u64>,
}

/// Makes a forecast. Takes some seconds, for measurements.
///
/// # Errors
/// Anything wrong with the files or the drive. A budget that is too small is no error:
/// [`Forecast::fits`] says so.
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
    // Without room for the model there is no chunk either; then a prompt is one.
    let chunk_tokens = MemoryPlan::new(&input).map_or(usize::MAX, |plan| plan.chunk_tokens);
    let passes = Passes {
        streams: resolved.parallel,
        chunk_tokens: chunk_tokens.min(options.prompt_tokens).max(1),
        time_max_s: resolved.pass_time_max.as_secs_f64(),
    };
    let machine = measure(target, (&facts, passes), storage.as_ref(), engine_options, options, progress)?;
    let (lossy, lookahead) = (&resolved.lossy, resolved.lookahead);
    let model = Model { facts: &facts, machine: &machine, input: &input, lossy, lookahead, passes };
    Ok(model.forecast(target, options))
}

fn facts(target: &Target) -> Result<(Facts, ModelSizes), LabError> {
    match target {
        Target::Model(path) => {
            let opened = Opened::new(path)?;
            Ok((Facts::of(&opened, BLOCK_BYTES)?, opened.sizes(BLOCK_BYTES)?))
        }
        Target::Remote(remote) => Ok((remote.facts.clone(), remote.sizes)),
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

/// Why a disk is too small, if it is.
fn no_disk(dir: &Path, needed: u64, free: u64) -> Option<String> {
    let [needs, has] = [needed, free].map(system::human_bytes);
    (needed > free).then(|| format!("{}: the model takes {needs} of disk, and {has} are free", dir.display()))
}

/// What a forecast is computed from.
struct Model<'a> {
    facts: &'a Facts,
    machine: &'a Machine,
    input: &'a PlanInput<'a>,
    lossy: &'a [String],
    lookahead: bool,
    passes: Passes,
}

/// Passes that are forecast.
#[derive(Copy, Clone, Debug)]
struct Passes {
    /// Streams that decode together.
    streams: usize,
    /// Tokens of a prompt that are computed together.
    chunk_tokens: usize,
    /// Longest pass in which a prompt has company.
    time_max_s: f64,
}

impl Model<'_> {
    fn forecast(&self, target: &Target, options: &ForecastOptions) -> Forecast {
        let (facts, config, input) = (self.facts, &self.facts.config, self.input);
        let plan = MemoryPlan::new(input);
        let (disk_needed, download) = match target {
            Target::Model(_) => (None, None),
            Target::Preset(..) => (Some(self.weight_bytes()), None),
            Target::Remote(remote) => (Some(remote.missing_bytes), Some(remote.download_bytes)),
        };
        let disk_free = disk_needed.and_then(|_| storage::free_disk_bytes(&options.disk_dir));
        let reason = plan.as_ref().err().map(ToString::to_string);
        let reason = reason.or_else(|| no_disk(&options.disk_dir, disk_needed?, disk_free?));
        let plan = plan.ok();
        let touched = facts.expert_bytes_per_token();
        let dense_bytes_per_token = facts.dense_bytes_per_token();
        let asked = plan.as_ref().map(|plan| self.budget(input.budget_bytes, plan.slots));
        let prefill = plan.as_ref().map(|plan| self.prefill_s(plan, options.prompt_tokens));
        Forecast {
            model: match target {
                Target::Model(path) => path.display().to_string(),
                Target::Preset(preset, _) => preset.name.to_string(),
                Target::Remote(remote) => remote.name.clone(),
            },
            on_disk: matches!(target, Target::Model(_)),
            architecture: config.family.into(),
            layers: config.num_layers(),
            experts_per_layer: config.experts_max(),
            experts_per_token: config.per_token_max(),
            lossy: self.lossy.to_vec(),
            kv: input.kv.to_string(),
            lookahead: self.lookahead,
            parallel: self.passes.streams,
            formats: facts.formats(),
            fits: reason.is_none(),
            download_bytes: download,
            disk_needed_bytes: disk_needed,
            disk_free_bytes: disk_free,
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
            asked,
            plan,
            prompt_tokens: options.prompt_tokens,
            prefill_tokens_per_s: prefill.map(|seconds| options.prompt_tokens as f64 / seconds),
            pass_time_max_s: self.passes.time_max_s,
            pass_time_least_s: asked.map(|asked| asked.typical.token_time_s + self.least_prompt_s()),
            budgets: self.budgets(),
            knee_memory_bytes: self.knee(),
        }
    }

    /// Weights of all kinds, as they would lie on a disk.
    fn weight_bytes(&self) -> u64 {
        let dense: u64 = self.facts.dense.iter().map(|dense| dense.bytes).sum();
        dense + (self.facts.expert_bytes() * self.facts.expert_count as f64) as u64
    }

    /// Time that memory takes for all bytes that a pass computes with.
    fn memory_time_s(&self) -> f64 {
        let facts = self.facts;
        let bytes = facts.dense_bytes_per_token() + facts.expert_bytes_per_pass(self.passes.streams);
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

    /// The least budget from which on twice the slots gain little for real text. Looked for from
    /// the top: with very few slots twice as many gain little too.
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
        let machine = self.machine;
        let (mut pass_s, mut reads_s, mut experts) = (machine.head_compute_s, 0.0, 0.0);
        for kind in &machine.layer_kinds {
            let (layer_s, layer_reads_s) = self.layer_s(&kind.decode, hit_rate);
            pass_s += kind.layers as f64 * layer_s;
            reads_s += kind.layers as f64 * layer_reads_s;
            experts += kind.layers as f64 * kind.decode.experts;
        }
        let (pass_s, streams) = (pass_s.max(1e-9), self.passes.streams as f64);
        Expected {
            hit_rate,
            expert_bytes_per_token: (1.0 - hit_rate) * experts * machine.drive_record_bytes as f64 / streams,
            disk_time_s: reads_s,
            token_time_s: pass_s,
            decode_tokens_per_s: 1.0 / pass_s,
            total_tokens_per_s: streams / pass_s,
        }
    }

    /// Time of one layer, and of its reads alone.
    fn layer_s(&self, cost: &PassCost, hit_rate: f64) -> (f64, f64) {
        let (dense_s, computed_s) = (cost.dense_s, cost.total_s());
        let (mut layer_s, mut reads_s) = (0.0, 0.0);
        for (misses, probability) in
            binomial(cost.experts.round() as usize, 1.0 - hit_rate).into_iter().enumerate()
        {
            let misses = misses as f64;
            let tail_s = if misses > 0.0 { cost.expert_s } else { 0.0 };
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
        (layer_s, reads_s)
    }

    /// Time that the drive takes for so many records while the processor computes for the first
    /// `computed_s` of it.
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

    /// Time until `records` records that are asked for at once are there: between the numbers that
    /// were measured.
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

    /// What the shortest part of a prompt adds to a pass: the slowest layer, its experts read.
    fn least_prompt_s(&self) -> f64 {
        let machine = self.machine;
        let read_s = machine.drive_record_bytes as f64 / machine.drive_bytes_per_s.max(1.0);
        let rows = LEAST_PART_TOKENS.min(self.passes.chunk_tokens);
        let layer_s = |cost: &PassCost| {
            let reads = cost.distinct(rows);
            (cost.total_s() * rows as f64 / cost.rows.max(1) as f64).max(reads * read_s)
        };
        machine.layer_kinds.iter().map(|kind| layer_s(&kind.prefill)).fold(0.0, f64::max)
    }

    /// Time of a prompt: each expert that any token chose is read once a layer and chunk. Unless
    /// everything is resident a pass over all layers finds nothing in a least-recently-used cache.
    fn prefill_s(&self, plan: &MemoryPlan, tokens: usize) -> f64 {
        let machine = self.machine;
        let read_s = machine.drive_record_bytes as f64 / machine.drive_bytes_per_s.max(1.0);
        let resident = plan.slots >= plan.expert_count;
        let (mut seconds, mut left) = (machine.head_compute_s, tokens);
        while left > 0 {
            let chunk = left.min(plan.chunk_tokens.max(1));
            let (mut together_s, mut apart_s, mut reads_s) = (0.0, 0.0, 0.0);
            for kind in &machine.layer_kinds {
                let (layers, cost) = (kind.layers as f64, &kind.prefill);
                let share = chunk as f64 / cost.rows.max(1) as f64;
                let experts_s = share * cost.experts * cost.expert_s;
                let layer_reads_s = if resident { 0.0 } else { cost.distinct(chunk) * read_s };
                together_s += layers * share * cost.total_s();
                apart_s += layers * (share * (cost.dense_s + cost.shared_s) + layer_reads_s.max(experts_s));
                reads_s += layers * layer_reads_s;
            }
            seconds += if self.lookahead { reads_s.max(together_s) } else { apart_s };
            left -= chunk;
        }
        seconds
    }
}

/// Shortest part of a prompt that rides along with streams that decode, tokens.
const LEAST_PART_TOKENS: usize = ops::DELTA_BLOCK_TOKENS;

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

/// Measures drive, memory and layers.
fn measure(
    target: &Target,
    (facts, passes): (&Facts, Passes),
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
    let source = match target {
        Target::Model(path) => Source::Model(path),
        Target::Preset(..) | Target::Remote(_) => {
            Source::Temporary(&options.disk_dir, options.probe_file_bytes)
        }
    };
    let drive = Drive::measure(&source, facts, storage, (threads, memory_bytes))?;
    progress("measuring memory and layers");
    let memory = probe::memory_rates(threads, memory_bytes)?;
    let (layer_kinds, head_compute_s) =
        layer_costs::measure(facts, passes.streams, passes.chunk_tokens, engine_options)?;
    let backend = CpuBackend::new(CpuOptions { threads, isa: engine_options.isa })
        .map_err(engine::EngineError::from)?;
    let all_layers = |pick: fn(&PassCost) -> f64| {
        layer_kinds.iter().map(|kind| kind.layers as f64 * pick(&kind.decode)).sum()
    };
    Ok(Machine {
        threads: backend.threads(),
        isa: backend.isa().to_string(),
        free_memory_bytes,
        drive_measured_on: drive.measured_on,
        drive_bytes_per_s: drive.bytes_per_s,
        drive_bytes_per_s_computing: drive.bytes_per_s_computing,
        drive_record_bytes: drive.record_bytes,
        drive_depth: drive.depth,
        drive_bursts_s: drive.bursts_s,
        memory_bytes_per_s: median(&memory),
        dense_compute_s: all_layers(|cost| cost.dense_s),
        head_compute_s,
        shared_compute_s: all_layers(|cost| cost.shared_s),
        expert_compute_s: all_layers(|cost| cost.experts * cost.expert_s),
        layer_kinds,
    })
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

    #[test]
    fn a_disk_that_is_too_small_is_named_with_both_sizes() {
        let dir = Path::new("somewhere");
        assert_eq!(no_disk(dir, 5 << 30, 5 << 30), None);
        let reason = no_disk(dir, 6 << 30, 5 << 30).unwrap_or_default();
        assert!(reason.contains("6.00 GiB") && reason.contains("5.00 GiB"), "{reason}");
    }
}
