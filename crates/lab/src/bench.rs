//! `bench`: how fast a model runs here, and how fast the drive and the memory would let it.
//!
//! A token cannot take less time than the drive needs for the expert bytes that were not in memory
//! (D), nor less than the memory needs for all bytes that the token computes with (M). The roofline
//! fraction is max(D, M) over the time that a token took: 1 is as fast as this machine can be. Both
//! rates are measured in the same run; `docs/benchmarking.md` says how each figure comes about.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use engine::door::{Opened, ResolvedOptions, open_files, open_storage};
use engine::plan::MemoryPlan;
use engine::{Engine, EngineOptions, Loading, Request, system};
use kernels_cpu::{CpuBackend, CpuOptions};
use models::synthetic::Synthetic;
use ops::PAGE_TOKENS;
use serde::Serialize;
use storage::{AlignedBuf, IoMode, SplitMix64};

use crate::LabError;
use crate::facts::{Facts, Shape, distinct_records};
use crate::figures::{median, ratio};
use crate::mark::Mark;
pub use crate::mark::TimeSplit;
use crate::probe::{self, Deck, DriveProbe, Limit};
use crate::streams::{self, Load};
pub use crate::streams::{Arrival, Streams};
use crate::turns::Conversation;
pub use crate::turns::{Restarted, Turns};

/// Tokens of warm-up when nobody asks for another number.
const WARMUP_TOKENS_DEFAULT: usize = 8;
/// Tokens that a stream may decode beyond those that are measured, at least.
const STREAM_SLACK_TOKENS: usize = 256;
/// One measurement of the drive.
const DRIVE_LIMIT: Limit = Limit { time: Duration::from_millis(1000), bytes: 4 << 30 };
/// Buffer of the memory probe: many times any cache, where the budget allows.
const MEMORY_PROBE_BYTES: u64 = 1 << 30;
/// Where it does not, this share of the budget: 1/4.
const MEMORY_PROBE_SHARE: u64 = 4;

/// What is measured.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// Tokens of each prompt.
    pub prompt_tokens: usize,
    /// Tokens decoded after each prompt.
    pub decode_tokens: usize,
    /// Prompts.
    pub repeats: usize,
    /// Tokens of prompt and of decode before anything is measured; `None`: 8.
    pub warmup_tokens: Option<usize>,
    /// Text to take the tokens from; `None`: random ids.
    pub text: Option<String>,
    /// Seed of the random ids and of the order of the drive's reads.
    pub seed: u64,
    /// Streams that then decode together, each from a prompt of its own.
    pub parallel: Option<usize>,
    /// Tokens of a prompt that arrives while they do; of one stream if `parallel` is `None`.
    pub arrive_tokens: Option<usize>,
    /// New tokens in the second turn of a conversation.
    pub turn_tokens: Option<usize>,
}

impl BenchOptions {
    /// Streams that decode together, if that is measured.
    fn streams(&self) -> Option<usize> {
        self.parallel.or(self.arrive_tokens.map(|_| 1))
    }

    /// Tokens that a stream may decode: what is measured, and what it decodes until all others have
    /// begun, or until the prompt that arrives is computed.
    fn stream_tokens(&self, ctx: usize) -> usize {
        let measured = 3 * self.decode_tokens + STREAM_SLACK_TOKENS;
        let most = ctx.saturating_sub(self.prompt_tokens);
        if self.arrive_tokens.is_some() { most } else { measured.min(most) }
    }

    /// What the engine must have room for.
    fn with_room(&self, options: &EngineOptions) -> EngineOptions {
        let Some(streams) = self.streams() else { return options.clone() };
        let parallel = Some(streams + usize::from(self.arrive_tokens.is_some()));
        // Of whole contexts for all of them most would stay empty.
        let stream = || (self.prompt_tokens + self.stream_tokens(usize::MAX)).next_multiple_of(PAGE_TOKENS);
        let usual = self.arrive_tokens.is_none().then(|| streams * stream());
        EngineOptions { parallel, kv_tokens: options.kv_tokens.or(usual), ..options.clone() }
    }
}

impl Default for BenchOptions {
    fn default() -> Self {
        Self {
            prompt_tokens: 64,
            decode_tokens: 64,
            repeats: 3,
            warmup_tokens: None,
            text: None,
            seed: 1,
            parallel: None,
            arrive_tokens: None,
            turn_tokens: None,
        }
    }
}

/// What a benchmark is doing.
#[derive(Debug)]
#[non_exhaustive]
pub enum BenchEvent<'a> {
    /// The model is being opened.
    Loading(Loading<'a>),
    /// Something that takes a while begins.
    Step(&'a str),
}

/// Smallest and largest of the repeats.
#[derive(Copy, Clone, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

/// One measured prompt and what was decoded after it.
#[derive(Clone, Debug, Serialize)]
pub struct BenchRun {
    /// Time of the prompt, which is the time to the first token.
    pub prefill_s: f64,
    /// Time of all decoded tokens.
    pub decode_s: f64,
    /// Expert bytes read for the prompt.
    pub prefill_expert_bytes: u64,
    /// Expert bytes read while decoding.
    pub decode_expert_bytes: u64,
    /// Of those, bytes read ahead that nobody then asked for.
    pub decode_wasted_bytes: u64,
    /// Share of the decode's expert requests that were in memory.
    pub hit_rate: f64,
    /// Time while decoding with at least one read under way.
    pub read_busy_s: f64,
    /// The drive before and after the decode, bytes per second; empty when everything is resident.
    pub drive_bytes_per_s: Vec<f64>,
    /// Decode, per token.
    pub decode_split: TimeSplit,
    /// Prefill, per token.
    pub prefill_split: TimeSplit,
}

/// A finished benchmark: medians over the repeats, in the units of the command-line contract. As
/// JSON it is one flat object.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// What was measured on, and how.
    #[serde(flatten)]
    pub about: About,
    /// How fast it was.
    #[serde(flatten)]
    pub rates: Rates,
    /// How fast it could have been.
    #[serde(flatten)]
    pub limits: Limits,
    /// Several streams together.
    #[serde(flatten)]
    pub streams: Option<Streams>,
    /// A conversation of two turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turns: Option<Turns>,
    /// Smallest and largest over the repeats (drive and memory: over their samples).
    pub spread: BTreeMap<String, Spread>,
    /// Each repeat.
    pub runs: Vec<BenchRun>,
}

/// What was measured on, and how.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // The fields are the JSON's; docs/benchmarking.md describes each.
pub struct About {
    pub model: String,
    pub architecture: String,
    pub container: String,
    pub layers: usize,
    pub experts_per_layer: usize,
    pub experts_per_token_model: usize,
    pub experts_per_token: usize,
    pub lossy: Vec<String>,
    pub kv: String,
    pub formats: BTreeMap<String, BTreeSet<String>>,
    /// Expert records in the files; fewer than experts when layers share them.
    pub expert_records: usize,
    pub shared_records: Option<String>,
    /// Random weights: which, and how skewed their routers are.
    pub synthetic: Option<Synthetic>,

    pub threads: usize,
    pub isa: String,
    pub io_threads: usize,
    pub io_mode: String,
    pub io_engine: String,
    pub lookahead: bool,
    pub io_fallback: Option<String>,
    pub memory_budget_bytes: u64,
    pub plan: MemoryPlan,
    pub expert_slots: usize,
    pub expert_count: usize,
    pub resident: bool,
    pub ctx: usize,
    pub chunk_tokens: usize,
    /// Streams that decode together in the figures that say so.
    pub parallel: usize,

    pub prompt_tokens: usize,
    pub decode_tokens: usize,
    pub repeats: usize,
    pub warmup_tokens: usize,
    pub token_source: String,
    pub seed: u64,
}

/// How fast it was.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // As above.
pub struct Rates {
    pub decode_tokens_per_s: f64,
    pub prefill_tokens_per_s: f64,
    pub time_to_first_token_s: f64,
    pub token_time_s: f64,
    pub expert_bytes_per_token: f64,
    pub wasted_bytes_per_token: f64,
    pub prefill_expert_bytes: f64,
    pub hit_rate: f64,
    pub read_bytes_per_s: f64,
    pub read_bytes_per_s_busy: f64,
    #[serde(flatten)]
    pub split: TimeSplit,
    pub prefill_split: TimeSplit,
    pub peak_resident_bytes: Option<u64>,
}

/// How fast it could have been.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // As above.
pub struct Limits {
    pub drive_bytes_per_s: f64,
    pub drive_bytes_per_s_computing: f64,
    pub drive_record_bytes: u64,
    pub drive_depth: usize,
    pub drive_offsets_repeated: bool,
    pub read_rate_fraction: f64,
    pub memory_bytes_per_s: f64,
    pub memory_probe_bytes: u64,
    pub dense_bytes_per_token: f64,
    pub expert_bytes_touched_per_token: f64,
    pub disk_time_s: f64,
    pub memory_time_s: f64,
    pub roofline_fraction: f64,
    pub both_time_s: f64,
    pub both_fraction: f64,
    pub kernel_products_per_s: BTreeMap<String, f64>,
    pub prefill_disk_time_s: f64,
    pub prefill_arithmetic_time_s: f64,
    pub prefill_roofline_fraction: f64,
}

/// Measures a model. Memory stays within the budget in every phase: the drive is read into slots on
/// loan, memory and kernels are measured while no model is loaded.
///
/// # Errors
/// As [`Engine::open`]; a prompt that does not fit; a text without tokens.
pub fn bench(
    path: &Path,
    engine_options: &EngineOptions,
    options: &BenchOptions,
    progress: &mut dyn FnMut(BenchEvent<'_>),
) -> Result<BenchReport, LabError> {
    let opened = Opened::new(path)?;
    let block_bytes = storage::BLOCK_BYTES;
    let facts = Facts::of(&opened, block_bytes)?;
    let mut engine_options = options.with_room(engine_options);
    let resolved = ResolvedOptions::new(&engine_options, &opened.config)?;
    let threads = resolved.threads;
    let probe_bytes = MEMORY_PROBE_BYTES.min(resolved.memory_bytes / MEMORY_PROBE_SHARE);
    // A plan that does not fit is refused before anything is measured.
    let plan = opened.plan(&resolved, block_bytes)?;
    check_fits(options, plan.ctx)?;
    progress(BenchEvent::Step("measuring the memory"));
    let mut memory = probe::memory_rates(threads, probe_bytes as usize)?;

    system::reset_peak_resident();

    // The budget is settled here: a default taken again later would be another.
    engine_options.memory_bytes = Some(resolved.memory_bytes);
    let open = |progress: &mut dyn FnMut(BenchEvent<'_>)| {
        Engine::open(path, engine_options.clone(), &mut |event| progress(BenchEvent::Loading(event)))
    };
    let engine = open(progress)?;
    let mut measured = Bench::new(&engine, &opened, options)?.run(resolved.pass_time_max, progress)?;
    let about = About::of(&engine, &resolved, options, &opened, &facts);
    let compute = engine.compute();
    drop(engine);
    if let (Some((conversation, turns)), Some(_)) = (&mut measured.turns, &resolved.session_cache) {
        conversation.go_on(&open(progress)?, turns)?;
    }

    progress(BenchEvent::Step("measuring the memory, the drive beside it and the kernels"));
    let drive_computing = drive_while_computing(&opened, &resolved, &facts, threads, probe_bytes as usize)?;
    memory.extend(probe::memory_rates(threads, probe_bytes as usize)?);
    let mut backend =
        CpuBackend::new(CpuOptions { threads, isa: Some(compute.isa) }).map_err(engine::EngineError::from)?;
    let kernels = kernel_rates(&mut backend, &facts);
    let figures = Figures::of(&measured, options, &memory);
    let rates = Rates::of(&figures, &measured);
    let machine = MachineRates { drive_computing, memory_probe_bytes: probe_bytes, kernels };
    let limits = Limits::of(&figures, &rates, &measured, &facts, options.prompt_tokens, machine);
    let Measured { runs, streams, turns, .. } = measured;
    let turns = turns.map(|(_, turns)| turns);
    Ok(BenchReport { about, rates, limits, streams, turns, spread: figures.spreads(), runs })
}

/// What was measured while no model was loaded.
struct MachineRates {
    drive_computing: f64,
    memory_probe_bytes: u64,
    kernels: BTreeMap<String, f64>,
}

/// The drive's rate while memory is read, with the experts' own records. Memory stays within the
/// budget: the model is gone.
fn drive_while_computing(
    opened: &Opened,
    options: &ResolvedOptions,
    facts: &Facts,
    threads: usize,
    memory_bytes: usize,
) -> Result<f64, LabError> {
    let storage = open_storage(options)?;
    let files = open_files(&opened.checkpoint, storage.as_ref())?;
    let mut deck = Deck::new(distinct_records(opened, &files), 2);
    if deck.is_empty() {
        return Ok(0.0);
    }
    let slot_bytes = usize::try_from(facts.slot_bytes).unwrap_or(usize::MAX);
    let mut bufs = AlignedBuf::many(facts.config.per_token_max().max(1), slot_bytes)?;
    bufs.iter_mut().for_each(|buf| buf.fill(1));
    let mut probe = DriveProbe { storage: storage.as_ref(), deck: &mut deck };
    probe::drive_while_computing(threads, memory_bytes, &mut probe, &mut bufs, DRIVE_LIMIT)
}

/// Least time for what takes `disk_s` alone and what takes `memory_s`, when the drive gives only
/// this share of its rate while memory is read.
fn both_time_s(disk_s: f64, memory_s: f64, share: f64) -> f64 {
    let share = share.clamp(0.0, 1.0);
    memory_s + (disk_s - share * memory_s).max(0.0)
}

fn check_fits(options: &BenchOptions, ctx: usize) -> Result<(), LabError> {
    let (prompt, decode) = (options.prompt_tokens, options.decode_tokens);
    let second_turn = options.turn_tokens.map(|more| (prompt + decode + more, decode));
    // A stream has decoded some tokens when the last of them begins.
    let stream = options.streams().map(|_| (prompt, 2 * decode));
    let arrival = options.arrive_tokens.map(|tokens| (tokens, 1));
    for (prompt, decode) in [Some((prompt, decode)), second_turn, stream, arrival].into_iter().flatten() {
        if prompt + decode > ctx {
            return Err(LabError::BeyondContext { prompt, decode, ctx });
        }
    }
    Ok(())
}

/// Multiply-adds per second at best, by format, of the matrices that a prompt is multiplied with.
fn kernel_rates(backend: &mut CpuBackend, facts: &Facts) -> BTreeMap<String, f64> {
    let mut largest: BTreeMap<tensor::Format, Shape> = BTreeMap::new();
    for shape in facts.body().chain(facts.expert_shapes().flatten()).chain(facts.head()) {
        let entry = largest.entry(shape.format).or_insert(shape);
        if shape.cols * shape.rows.min(512) > entry.cols * entry.rows.min(512) {
            *entry = shape;
        }
    }
    let rate = |(format, shape): (tensor::Format, Shape)| {
        (format.to_string(), probe::peak_products_per_s(backend, shape))
    };
    largest.into_iter().map(rate).collect()
}

/// Where token ids come from: another piece for each repeat.
enum Tokens {
    Random { random: SplitMix64, vocab: u64 },
    Text { ids: Vec<u32>, next: usize },
}

impl Tokens {
    fn new(engine: &Engine, options: &BenchOptions) -> Result<Self, LabError> {
        let Some(text) = &options.text else {
            let vocab = engine.config().vocab_size as u64;
            return Ok(Self::Random { random: SplitMix64::new(options.seed), vocab });
        };
        let ids = engine.tokenizer()?.encode(text, false)?;
        match ids.len() {
            0 | 1 => Err(LabError::TextTooShort { tokens: ids.len() }),
            _ => Ok(Self::Text { ids, next: 0 }),
        }
    }

    fn take(&mut self, count: usize) -> Vec<u32> {
        (0..count).map(|_| self.one()).collect()
    }

    /// A text that ends begins again.
    fn one(&mut self) -> u32 {
        match self {
            Self::Random { random, vocab } => random.below(*vocab) as u32,
            Self::Text { ids, next } => {
                let id = ids[*next];
                *next = (*next + 1) % ids.len();
                id
            }
        }
    }
}

/// A benchmark under way.
struct Bench<'a> {
    engine: &'a Engine,
    options: &'a BenchOptions,
    tokens: Tokens,
    deck: Deck,
    depth: usize,
    resident: bool,
    drive: Vec<f64>,
    drive_reads: (u64, u64),
}

/// What was measured.
struct Measured {
    runs: Vec<BenchRun>,
    drive: Vec<f64>,
    /// Bytes of one read, on average.
    record_bytes: u64,
    depth: usize,
    offsets_repeated: bool,
    peak_resident_bytes: Option<u64>,
    streams: Option<Streams>,
    turns: Option<(Conversation, Turns)>,
}

impl<'a> Bench<'a> {
    fn new(engine: &'a Engine, opened: &Opened, options: &'a BenchOptions) -> Result<Self, LabError> {
        let records = distinct_records(opened, engine.files());
        let plan = engine.plan();
        Ok(Self {
            tokens: Tokens::new(engine, options)?,
            deck: Deck::new(records, options.seed),
            // As deep as a layer asks: its experts at once, as far as there are slots.
            depth: engine.config().per_token_max().min(plan.slots).max(1),
            resident: plan.slots >= plan.expert_count,
            drive: Vec::new(),
            drive_reads: (0, 0),
            engine,
            options,
        })
    }

    fn run(
        mut self,
        pass_time_max: Duration,
        progress: &mut dyn FnMut(BenchEvent<'_>),
    ) -> Result<Measured, LabError> {
        if self.resident {
            progress(BenchEvent::Step("measuring the drive"));
            self.measure_drive()?;
        }
        progress(BenchEvent::Step("filling the expert slots"));
        self.engine.with_runtime(|runtime| runtime.preload(&|| false))??;
        progress(BenchEvent::Step("warming up"));
        let warmup = self.options.warmup_tokens.unwrap_or(WARMUP_TOKENS_DEFAULT);
        let warmup = warmup.min(self.engine.plan().ctx / 2);
        if warmup > 0 {
            let prompt = self.prefill(warmup)?;
            self.decode(prompt, warmup)?;
        }
        let mut runs = Vec::with_capacity(self.options.repeats);
        for repeat in 0..self.options.repeats {
            progress(BenchEvent::Step(&format!("measuring, {} of {}", repeat + 1, self.options.repeats)));
            runs.push(self.repeat()?);
        }
        let streams = match self.options.streams() {
            Some(count) => {
                progress(BenchEvent::Step(&format!("measuring {count} streams together")));
                Some(self.streams(count, pass_time_max)?)
            }
            None => None,
        };
        let turns = match self.options.turn_tokens {
            Some(tokens) => {
                progress(BenchEvent::Step("measuring two turns"));
                Some(self.turns(tokens)?)
            }
            None => None,
        };
        let peak_resident_bytes = system::peak_resident_bytes();
        if self.resident {
            self.measure_drive()?;
        }
        Ok(Measured {
            runs,
            record_bytes: self.drive_reads.0 / self.drive_reads.1.max(1),
            depth: self.depth,
            offsets_repeated: self.deck.repeated,
            drive: self.drive,
            peak_resident_bytes,
            streams,
            turns,
        })
    }

    /// Streams that decode together, each from a prompt of its own.
    fn streams(&mut self, count: usize, pass_time_max: Duration) -> Result<Streams, LabError> {
        let tokens = self.options.stream_tokens(self.engine.plan().ctx);
        let prompt_tokens = self.options.prompt_tokens;
        let streams =
            (0..count).map(|_| (self.tokens.take(prompt_tokens), self.tokens.take(tokens))).collect();
        let arrival = self.options.arrive_tokens.map(|tokens| self.tokens.take(tokens));
        let load = Load { streams, tokens: self.options.decode_tokens, arrival, pass_time_max };
        streams::measure(self.engine, &load)
    }

    fn turns(&mut self, more_tokens: usize) -> Result<(Conversation, Turns), LabError> {
        let conversation = Conversation {
            prompt: self.tokens.take(self.options.prompt_tokens),
            answer: self.tokens.take(self.options.decode_tokens),
            more: self.tokens.take(more_tokens),
        };
        let turns = conversation.run(self.engine)?;
        Ok((conversation, turns))
    }

    /// Computes a prompt. No other begins as it does, so nothing of it was computed before.
    fn prefill(&mut self, tokens: usize) -> Result<Vec<u32>, LabError> {
        let prompt = self.tokens.take(tokens);
        let request = Request { max_tokens: 0, ..self.engine.request(&prompt[..]) };
        self.engine.generate(request, |_| ControlFlow::Continue(()))?;
        Ok(prompt)
    }

    /// One token at a time; which one comes from the source of tokens, not from the logits, so that
    /// a model with random weights does not loop and hit its cache. The first is the end of a
    /// prompt that was computed but for it.
    fn decode(&mut self, mut prompt: Vec<u32>, tokens: usize) -> Result<(), LabError> {
        prompt.push(self.tokens.one());
        let forced = self.tokens.take(tokens - 1);
        let request =
            Request { max_tokens: tokens, stop_ids: Vec::new(), forced, ..self.engine.request(prompt) };
        self.engine.generate(request, |_| ControlFlow::Continue(()))?;
        Ok(())
    }

    fn repeat(&mut self) -> Result<BenchRun, LabError> {
        let BenchOptions { prompt_tokens, decode_tokens, .. } = *self.options;
        let start = Mark::now(self.engine)?;
        let prompt = self.prefill(prompt_tokens)?;
        let prefilled = Mark::now(self.engine)?;
        let drive_from = self.drive.len();
        if !self.resident {
            self.measure_drive()?;
        }
        let decoding = Mark::now(self.engine)?;
        self.decode(prompt, decode_tokens)?;
        let end = Mark::now(self.engine)?;
        if !self.resident {
            self.measure_drive()?;
        }
        let requests = end.requests - decoding.requests;
        Ok(BenchRun {
            prefill_s: (prefilled.at - start.at).as_secs_f64(),
            decode_s: (end.at - decoding.at).as_secs_f64(),
            prefill_expert_bytes: prefilled.bytes_read - start.bytes_read,
            decode_expert_bytes: end.bytes_read - decoding.bytes_read,
            decode_wasted_bytes: end.bytes_wasted - decoding.bytes_wasted,
            // A model without experts misses none.
            hit_rate: if requests > 0 { (end.hits - decoding.hits) as f64 / requests as f64 } else { 1.0 },
            read_busy_s: (end.busy_us - decoding.busy_us) as f64 / 1e6,
            drive_bytes_per_s: self.drive[drive_from..].to_vec(),
            decode_split: decoding.split(&end, decode_tokens),
            prefill_split: start.split(&prefilled, prompt_tokens),
        })
    }

    /// The drive's own rate: records as the experts lie, as many under way as a layer has, into
    /// slots on loan.
    fn measure_drive(&mut self) -> Result<(), LabError> {
        if self.deck.is_empty() {
            return Ok(());
        }
        let mut result = Ok(probe::DriveSample::default());
        let storage = self.engine.storage();
        let deck = &mut self.deck;
        self.engine.lend_buffers(self.depth, &mut |bufs| {
            let mut probe = DriveProbe { storage: storage.as_ref(), deck: &mut *deck };
            result = probe.steady(bufs, DRIVE_LIMIT);
        })?;
        let sample = result?;
        self.drive.push(sample.bytes_per_s());
        self.drive_reads.0 += sample.bytes;
        self.drive_reads.1 += sample.reads;
        Ok(())
    }
}

impl About {
    fn of(
        engine: &Engine,
        resolved: &ResolvedOptions,
        options: &BenchOptions,
        opened: &Opened,
        facts: &Facts,
    ) -> Self {
        let (config, plan) = (&facts.config, engine.plan().clone());
        let direct = engine.files().iter().all(|file| engine.storage().mode(*file) == IoMode::Direct);
        let expert_records = distinct_records(opened, engine.files()).len();
        let shared = expert_records < facts.expert_count;
        Self {
            model: opened.checkpoint.root().display().to_string(),
            architecture: config.family.into(),
            container: opened.checkpoint.kind().to_string(),
            layers: config.num_layers(),
            experts_per_layer: config.experts_max(),
            experts_per_token_model: config.per_token_max(),
            experts_per_token: config.per_token_max(),
            lossy: resolved.lossy.clone(),
            kv: resolved.kv.to_string(),
            formats: facts.formats(),
            expert_records,
            shared_records: shared.then(|| {
                let experts = facts.expert_count;
                format!("{experts} experts share {expert_records} records: layers read the same files")
            }),
            synthetic: Synthetic::of(&opened.checkpoint),
            threads: engine.compute().threads,
            isa: engine.compute().isa.to_string(),
            io_threads: resolved.io_threads,
            io_mode: if direct { "direct".into() } else { "buffered".into() },
            io_engine: format!("{:?}", engine.io_engine()).to_lowercase(),
            lookahead: resolved.lookahead,
            io_fallback: engine.io_fallback(),
            memory_budget_bytes: plan.budget_bytes,
            expert_slots: plan.slots,
            expert_count: plan.expert_count,
            resident: plan.slots >= plan.expert_count,
            ctx: plan.ctx,
            chunk_tokens: plan.chunk_tokens,
            parallel: options.streams().unwrap_or(1),
            plan,
            prompt_tokens: options.prompt_tokens,
            decode_tokens: options.decode_tokens,
            repeats: options.repeats,
            warmup_tokens: options.warmup_tokens.unwrap_or(WARMUP_TOKENS_DEFAULT),
            token_source: if options.text.is_some() { "text".into() } else { "random ids".into() },
            seed: options.seed,
        }
    }
}

fn spread(figures: &[f64]) -> Spread {
    let min = figures.iter().copied().fold(f64::INFINITY, f64::min);
    let max = figures.iter().copied().fold(0.0, f64::max);
    if figures.is_empty() { Spread::default() } else { Spread { min, max } }
}

/// Median of each part.
fn median_split(splits: &[TimeSplit]) -> TimeSplit {
    let part = |pick: fn(&TimeSplit) -> f64| median(&splits.iter().map(pick).collect::<Vec<_>>());
    TimeSplit {
        read_wait_s: part(|split| split.read_wait_s),
        fetch_s: part(|split| split.fetch_s),
        expert_compute_s: part(|split| split.expert_compute_s),
        dense_compute_s: part(|split| split.dense_compute_s),
        other_s: part(|split| split.other_s),
    }
}

/// Least time that the arithmetic of a prompt takes at the kernels' best: every weight of the
/// layers once a token (experts K of E), the head once.
fn arithmetic_s(facts: &Facts, tokens: usize, rates: &BTreeMap<String, f64>) -> f64 {
    let rate = |shape: &Shape| rates.get(shape.format.name()).copied().unwrap_or(f64::INFINITY);
    let time = |shape: Shape| ratio(shape.weights(), rate(&shape));
    let body: f64 = facts.body().map(time).sum();
    let experts: f64 = facts.expert_shapes().flatten().map(time).sum();
    let k = facts.config.per_token_max() as f64;
    tokens as f64 * (body + k * experts) + facts.head().map_or(0.0, time)
}

impl Rates {
    fn of(figures: &Figures, measured: &Measured) -> Self {
        let median = |name| figures.median(name);
        let splits = |pick: fn(&BenchRun) -> TimeSplit| {
            median_split(&measured.runs.iter().map(pick).collect::<Vec<_>>())
        };
        Self {
            decode_tokens_per_s: median("decode_tokens_per_s"),
            prefill_tokens_per_s: median("prefill_tokens_per_s"),
            time_to_first_token_s: median("time_to_first_token_s"),
            token_time_s: ratio(1.0, median("decode_tokens_per_s")),
            expert_bytes_per_token: median("expert_bytes_per_token"),
            wasted_bytes_per_token: median("wasted_bytes_per_token"),
            prefill_expert_bytes: median("prefill_expert_bytes"),
            hit_rate: median("hit_rate"),
            read_bytes_per_s: median("read_bytes_per_s"),
            read_bytes_per_s_busy: median("read_bytes_per_s_busy"),
            split: splits(|run| run.decode_split),
            prefill_split: splits(|run| run.prefill_split),
            peak_resident_bytes: measured.peak_resident_bytes,
        }
    }
}

impl Limits {
    fn of(
        figures: &Figures,
        rates: &Rates,
        measured: &Measured,
        facts: &Facts,
        prompt_tokens: usize,
        machine: MachineRates,
    ) -> Self {
        let MachineRates { drive_computing, memory_probe_bytes, kernels } = machine;
        let (drive, memory) = (figures.median("drive_bytes_per_s"), figures.median("memory_bytes_per_s"));
        let (dense_bytes, expert_bytes) = (facts.dense_bytes_per_token(), facts.expert_bytes_per_token());
        // What was read for nothing is no part of the least that had to be read.
        let disk_time_s =
            ratio((rates.expert_bytes_per_token - rates.wasted_bytes_per_token).max(0.0), drive);
        let memory_time_s = ratio(dense_bytes + expert_bytes, memory);
        let both_time_s = both_time_s(disk_time_s, memory_time_s, ratio(drive_computing, drive));
        let prefill_disk_time_s = ratio(rates.prefill_expert_bytes, drive);
        let prefill_arithmetic_time_s = arithmetic_s(facts, prompt_tokens, &kernels);
        let prefill_least = prefill_disk_time_s.max(prefill_arithmetic_time_s);
        Self {
            drive_bytes_per_s: drive,
            drive_bytes_per_s_computing: drive_computing,
            drive_record_bytes: measured.record_bytes,
            drive_depth: measured.depth,
            drive_offsets_repeated: measured.offsets_repeated,
            read_rate_fraction: ratio(rates.read_bytes_per_s, drive),
            memory_bytes_per_s: memory,
            memory_probe_bytes,
            dense_bytes_per_token: dense_bytes,
            expert_bytes_touched_per_token: expert_bytes,
            disk_time_s,
            memory_time_s,
            roofline_fraction: ratio(disk_time_s.max(memory_time_s), rates.token_time_s),
            both_time_s,
            both_fraction: ratio(both_time_s, rates.token_time_s),
            kernel_products_per_s: kernels,
            prefill_disk_time_s,
            prefill_arithmetic_time_s,
            prefill_roofline_fraction: ratio(prefill_least, rates.time_to_first_token_s),
        }
    }
}

/// Each figure of each repeat.
struct Figures(BTreeMap<&'static str, Vec<f64>>);

impl Figures {
    fn of(measured: &Measured, options: &BenchOptions, memory: &[f64]) -> Self {
        let (prompt, decoded) = (options.prompt_tokens as f64, options.decode_tokens as f64);
        let each = |figure: &dyn Fn(&BenchRun) -> f64| measured.runs.iter().map(figure).collect::<Vec<_>>();
        let bytes = |run: &BenchRun| run.decode_expert_bytes as f64;
        Self(BTreeMap::from([
            ("decode_tokens_per_s", each(&|run| ratio(decoded, run.decode_s))),
            ("prefill_tokens_per_s", each(&|run| ratio(prompt, run.prefill_s))),
            ("time_to_first_token_s", each(&|run| run.prefill_s)),
            ("expert_bytes_per_token", each(&|run| ratio(bytes(run), decoded))),
            ("wasted_bytes_per_token", each(&|run| ratio(run.decode_wasted_bytes as f64, decoded))),
            ("hit_rate", each(&|run| run.hit_rate)),
            ("read_bytes_per_s", each(&|run| ratio(bytes(run), run.decode_s))),
            ("read_bytes_per_s_busy", each(&|run| ratio(bytes(run), run.read_busy_s))),
            ("prefill_expert_bytes", each(&|run| run.prefill_expert_bytes as f64)),
            ("drive_bytes_per_s", measured.drive.clone()),
            ("memory_bytes_per_s", memory.to_vec()),
        ]))
    }

    fn median(&self, name: &str) -> f64 {
        self.0.get(name).map_or(0.0, |figures| median(figures))
    }

    fn spreads(&self) -> BTreeMap<String, Spread> {
        self.0.iter().map(|(name, figures)| (name.to_string(), spread(figures))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_take_is_between_the_longer_and_the_sum() {
        assert_eq!(both_time_s(0.1, 0.0, 0.5), 0.1);
        assert_eq!(both_time_s(0.0, 0.06, 0.5), 0.06);
        assert_eq!(both_time_s(0.02, 0.06, 0.5), 0.06);
        assert!((both_time_s(0.1, 0.06, 0.5) - 0.13).abs() < 1e-12);
        assert!((both_time_s(0.1, 0.06, 1.2) - 0.1).abs() < 1e-12);
        assert!((both_time_s(0.1, 0.06, 0.0) - 0.16).abs() < 1e-12);
    }

    #[test]
    fn a_spread_is_from_the_smallest_to_the_largest() {
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Spread { min: 1.0, max: 3.0 });
        assert_eq!(spread(&[]), Spread::default());
    }
}
