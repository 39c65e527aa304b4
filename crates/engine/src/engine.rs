//! Opening a model and stepping sessions through it.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use checkpoint::Checkpoint;
use experts::{ExpertStore, StoreOptions, Verify};
use kernels_cpu::{CpuBackend, CpuOptions, Isa};
use models::layout::{self, Layout};
use models::load::DenseLoader;
use models::{Config, Model, Scratch, ScratchRows};
use sampling::GenerationDefaults;
use storage::{FileId, FileStorage, IoEngine, IoMode, Storage, StorageOptions};
use tokenizer::Tokenizer;

use crate::plan::{MemoryPlan, PlanInput};
use crate::runtime::{Loaded, Runtime};
use crate::session::{Reuse, Session, Wanted};
use crate::{EngineError, EngineOptions, gguf, system};

/// Context when nobody asks for another, tokens.
pub const CTX_DEFAULT: usize = 4096;
/// Reads in flight when nobody asks for another number.
pub const IO_THREADS_DEFAULT: usize = 8;
/// Kept free for the rest of the system when no budget is given: 1/8 of what is available, at least this.
const RESERVE_BYTES_MIN: u64 = 512 << 20;
/// What a dense tensor takes in memory beyond its bytes, at most.
pub const BUFFER_OVERHEAD_BYTES: u64 = 8192;
/// Budget where the system does not say what is free.
const BUDGET_FALLBACK_BYTES: u64 = 4 << 30;

/// Progress while a model is opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Loading<'a> {
    /// Memory has been planned; nothing has been read yet.
    Planned(&'a MemoryPlan),
    /// Dense weights, bytes.
    Dense {
        /// Read so far.
        done: u64,
        /// Together.
        total: u64,
    },
    /// Direct reads were asked for and could not be had.
    IoFallback(&'a str),
    /// A ring was to read and could not be had.
    EngineFallback(&'a str),
}

/// A loaded model.
pub struct Engine {
    pub(crate) runtime: Box<dyn Runtime>,
    pub(crate) config: Config,
    pub(crate) defaults: GenerationDefaults,
    pub(crate) storage: Arc<dyn Storage>,
    /// The checkpoint's files as `storage` knows them.
    pub(crate) files: Vec<FileId>,
    pub(crate) compute: Compute,
    /// Lossy options that are on.
    pub(crate) lossy: Vec<String>,
    pub(crate) cancel: Arc<AtomicBool>,
    halve_slots: Arc<AtomicBool>,
    checkpoint: Checkpoint,
    plan: MemoryPlan,
    tokenizer: OnceCell<Arc<Tokenizer>>,
}

/// What computes.
#[derive(Copy, Clone, Debug)]
pub struct Compute {
    /// Compute threads.
    pub threads: usize,
    /// Instruction set of the kernels.
    pub isa: Isa,
}

/// What is known of a checkpoint before anything is loaded.
pub struct Opened {
    /// Tensors and files.
    pub checkpoint: Checkpoint,
    /// Hyper-parameters.
    pub config: Config,
    /// Dense tensors and the expert table.
    pub layout: Layout,
}

impl Opened {
    /// Reads the headers of a model: a directory or a GGUF file.
    ///
    /// # Errors
    /// Anything wrong with the files.
    pub fn new(path: &Path) -> Result<Self, EngineError> {
        let checkpoint = models::adopt(Checkpoint::open(path)?)?;
        let config = models::read_config(path, checkpoint.config())?;
        let layout = layout::layout(&checkpoint, &config)?;
        Ok(Self { checkpoint, config, layout })
    }

    /// Bytes of the dense weights in memory: each tensor has its own aligned buffer.
    pub fn dense_bytes(&self) -> u64 {
        let tensors = self.layout.dense.iter().filter_map(|expected| self.checkpoint.tensor(&expected.name));
        tensors.map(|info| info.extent.bytes + BUFFER_OVERHEAD_BYTES).sum()
    }

    /// Routed experts of all layers together.
    pub fn expert_count(&self) -> usize {
        self.layout.experts.layers.iter().map(|layer| layer.extents.len()).sum()
    }
}

impl Engine {
    /// Opens a model, a directory or a GGUF file: plans the memory, then loads the dense weights. `progress` is told both.
    ///
    /// # Errors
    /// Anything wrong with the files, a budget that is too small, a read that failed.
    pub fn open(
        path: &Path,
        options: EngineOptions,
        progress: &mut dyn FnMut(Loading<'_>),
    ) -> Result<Engine, EngineError> {
        let opened = Opened::new(path)?;
        let storage = open_storage(&options)?;
        let defaults = generation_defaults(&opened)?;
        let plan = memory_plan(&opened, &options, storage.block_bytes())?;
        progress(Loading::Planned(&plan));
        let files = open_files(&opened.checkpoint, storage.as_ref())?;
        if let Some(reason) = storage.fallback_reason() {
            progress(Loading::IoFallback(&reason));
        }
        if let Some(reason) = storage.engine_fallback() {
            progress(Loading::EngineFallback(&reason));
        }
        let loaded = load(&opened, &options, &plan, &storage, &files, progress)?;
        let Opened { checkpoint, config, .. } = opened;
        let compute = Compute { threads: loaded.backend.threads(), isa: loaded.backend.isa() };
        Ok(Engine {
            runtime: Box::new(loaded),
            config,
            defaults,
            storage,
            files,
            compute,
            lossy: options.lossy(),
            cancel: Arc::new(AtomicBool::new(false)),
            halve_slots: Arc::new(AtomicBool::new(false)),
            checkpoint,
            plan,
            tokenizer: OnceCell::new(),
        })
    }

    /// The model's hyper-parameters.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Sampling defaults and end tokens of the model.
    pub fn defaults(&self) -> &GenerationDefaults {
        &self.defaults
    }

    /// Who has how much of the memory budget.
    pub fn plan(&self) -> &MemoryPlan {
        &self.plan
    }

    /// Why reads go through the page cache although direct ones were asked for.
    pub fn io_fallback(&self) -> Option<String> {
        self.storage.fallback_reason()
    }

    /// What does the reading.
    pub fn io_engine(&self) -> IoEngine {
        self.storage.engine()
    }

    /// Bytes read from disk for experts since the model was opened.
    pub fn expert_bytes_read(&self) -> u64 {
        self.runtime.store_stats().bytes_read
    }

    /// Changes the budget of the whole process: expert slots are given back to the system, or more are taken; the
    /// context and the prompt chunk stay as they were planned. Answers do not change. Returns the number of slots.
    ///
    /// # Errors
    /// [`EngineError::BudgetTooSmall`] if less than the experts of one token would fit, [`EngineError::Model`] if there is no
    /// memory for more; the slots stay as they were then.
    pub fn set_memory_budget(&mut self, bytes: u64) -> Result<usize, EngineError> {
        let slots = self.plan.slots_within(bytes, self.config.num_experts_per_tok)?;
        self.set_slots(slots)?;
        self.plan.budget_bytes = bytes;
        Ok(self.plan.slots)
    }

    fn set_slots(&mut self, slots: usize) -> Result<(), EngineError> {
        self.plan.slots = self.runtime.resize_slots(slots)?;
        Ok(())
    }

    /// A flag that has half of the expert slots (but never fewer than one token's experts of a layer need) given back to
    /// the system before the next step when it is set. The step clears it. For signal handlers.
    pub fn halve_slots_flag(&self) -> Arc<AtomicBool> {
        self.halve_slots.clone()
    }

    /// Writes what is left of the trace that was asked for with [`EngineOptions::trace`].
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn flush_trace(&mut self) -> Result<(), EngineError> {
        Ok(self.runtime.flush_trace()?)
    }

    /// A flag that stops a running step between two layers when set. The step then ends with a cancelled generation.
    pub fn cancel_flag(&self) -> Arc<AtomicBool> {
        self.cancel.clone()
    }

    /// The model's tokenizer, loaded on first use.
    ///
    /// # Errors
    /// There is none, or its files are damaged.
    pub fn tokenizer(&self) -> Result<&Tokenizer, EngineError> {
        if let Some(tokenizer) = self.tokenizer.get() {
            return Ok(tokenizer);
        }
        let tokenizer = Arc::new(load_tokenizer(&self.checkpoint)?);
        Ok(self.tokenizer.get_or_init(|| tokenizer))
    }

    /// The tokenizer for as long as a generation runs, which needs the engine for itself.
    pub(crate) fn shared_tokenizer(&self) -> Result<Arc<Tokenizer>, EngineError> {
        self.tokenizer()?;
        self.tokenizer
            .get()
            .cloned()
            .ok_or_else(|| EngineError::NoTokenizer { path: self.checkpoint.root().into() })
    }

    /// Text to ids; special tokens in the text are recognised.
    ///
    /// # Errors
    /// As [`Engine::tokenizer`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        Ok(self.tokenizer()?.encode(text, true)?)
    }

    /// A new, empty timeline. The memory plan has room for one.
    ///
    /// # Errors
    /// None today; the scheduler will refuse what does not fit.
    pub fn session(&mut self) -> Result<Session, EngineError> {
        let ctx = self.plan.ctx;
        let (state, tokens) = (self.runtime.new_state(self.plan.kv, ctx)?, Vec::with_capacity(ctx));
        let can_rewind = self.config.can_rewind();
        Ok(Session { state, tokens, logits: Vec::new(), ctx, broken: false, can_rewind })
    }

    /// Brings a session to the whole token prefix given: reuses what it has, extends it, or rebuilds. Afterwards
    /// [`Session::logits`] are those after the last token. Returns the number of tokens computed.
    ///
    /// # Errors
    /// An empty or too long prefix, an id outside the vocabulary, a failed read. After an error the next call rebuilds.
    pub fn sync(
        &mut self,
        session: &mut Session,
        prefix: &[u32],
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<usize, EngineError> {
        self.check_tokens(prefix, session.ctx)?;
        let start = match session.reuse(prefix) {
            Reuse::Ready => return Ok(0),
            Reuse::Extend(start) => {
                if session.can_rewind {
                    self.runtime.rewind(session.state.as_mut(), start);
                    session.tokens.truncate(start);
                }
                start
            }
            Reuse::Rebuild => {
                self.rebuild(session);
                0
            }
        };
        let chunk_tokens = self.plan.chunk_tokens;
        let mut done = start;
        while done < prefix.len() {
            let end = prefix.len().min(done + chunk_tokens);
            let wanted = if end == prefix.len() { Wanted::Last } else { Wanted::None };
            let mut logits = std::mem::take(&mut session.logits);
            let result = self.step(session, &prefix[done..end], wanted, &mut |_, row| {
                logits.clear();
                logits.extend_from_slice(row);
            });
            session.logits = logits;
            result?;
            done = end;
            progress(done - start, prefix.len() - start);
        }
        Ok(prefix.len() - start)
    }

    /// Logits of every position of `tokens`, from an empty state. `sink` gets (position, [V]).
    ///
    /// # Errors
    /// As [`Engine::sync`].
    pub fn logits_all(
        &mut self,
        session: &mut Session,
        tokens: &[u32],
        sink: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), EngineError> {
        self.check_tokens(tokens, session.ctx)?;
        self.rebuild(session);
        for (index, chunk) in tokens.chunks(self.plan.chunk_tokens).enumerate() {
            let base = index * self.plan.chunk_tokens;
            self.step(session, chunk, Wanted::All, &mut |row, logits| sink(base + row, logits))?;
        }
        Ok(())
    }

    pub(crate) fn rebuild(&mut self, session: &mut Session) {
        self.runtime.clear(session.state.as_mut());
        session.tokens.clear();
        session.broken = false;
    }

    fn step(
        &mut self,
        session: &mut Session,
        tokens: &[u32],
        wanted: Wanted,
        sink: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), EngineError> {
        if self.halve_slots.swap(false, Ordering::Relaxed) {
            self.set_slots((self.plan.slots / 2).max(self.config.num_experts_per_tok))?;
        }
        session.broken = true;
        self.runtime.forward(session.state.as_mut(), tokens, wanted, &self.cancel, sink)?;
        session.broken = false;
        session.tokens.extend_from_slice(tokens);
        Ok(())
    }

    fn check_tokens(&self, tokens: &[u32], ctx: usize) -> Result<(), EngineError> {
        if tokens.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        if tokens.len() > ctx {
            let suggestion = tokens.len().next_multiple_of(256);
            return Err(EngineError::PromptTooLong { prompt: tokens.len(), ctx, suggestion });
        }
        let vocab = self.config.vocab_size;
        match tokens.iter().find(|id| **id as usize >= vocab) {
            Some(id) => Err(EngineError::TokenOutOfRange { id: *id, vocab }),
            None => Ok(()),
        }
    }

    pub(crate) fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }
}

/// The storage of the options, or one over the file system as they say.
///
/// # Errors
/// The I/O back-end cannot be had.
pub fn open_storage(options: &EngineOptions) -> Result<Arc<dyn Storage>, EngineError> {
    if let Some(storage) = &options.storage {
        return Ok(storage.clone());
    }
    let mode = options.io.unwrap_or(IoMode::Direct);
    let threads = options.io_threads.unwrap_or(IO_THREADS_DEFAULT);
    let engine = options.io_engine.unwrap_or_default();
    Ok(FileStorage::new(StorageOptions { mode, threads, engine })?)
}

/// Opens all files of a checkpoint, in its order.
///
/// # Errors
/// A file cannot be opened.
pub fn open_files(checkpoint: &Checkpoint, storage: &dyn Storage) -> Result<Vec<FileId>, EngineError> {
    let open = |path: &PathBuf| storage.open(path).map_err(EngineError::from);
    checkpoint.files().iter().map(open).collect()
}

/// The tokenizer of a checkpoint.
///
/// # Errors
/// There is none, or its files are damaged.
pub fn load_tokenizer(checkpoint: &Checkpoint) -> Result<Tokenizer, EngineError> {
    if let Some(gguf) = checkpoint.gguf() {
        return Ok(Tokenizer::from_gguf(&gguf::vocabulary(checkpoint, gguf)?)?);
    }
    let file = |name: &str| checkpoint.aux_file(name);
    let json =
        file("tokenizer.json").ok_or_else(|| EngineError::NoTokenizer { path: checkpoint.root().into() })?;
    let (config, template) = (file("tokenizer_config.json"), file("chat_template.jinja"));
    Ok(Tokenizer::from_files(&json, config.as_deref(), template.as_deref())?)
}

fn generation_defaults(opened: &Opened) -> Result<GenerationDefaults, EngineError> {
    let checkpoint = &opened.checkpoint;
    let mut defaults = match (checkpoint.gguf(), checkpoint.aux_file("generation_config.json")) {
        (Some(gguf), _) => {
            let json = gguf::generation_config(checkpoint, gguf, &opened.config.eos_token_ids);
            GenerationDefaults::parse(&json)?
        }
        (None, Some(path)) => GenerationDefaults::read(&path)?,
        (None, None) => GenerationDefaults::default(),
    };
    // Both files name end tokens, and not always the same ones: stop at any of them.
    for id in &opened.config.eos_token_ids {
        if !defaults.eos_token_ids.contains(id) {
            defaults.eos_token_ids.push(*id);
        }
    }
    Ok(defaults)
}

/// Bytes that a process without a given budget may plan with.
pub fn default_budget_bytes() -> u64 {
    let available = system::available_memory_bytes().unwrap_or(BUDGET_FALLBACK_BYTES);
    available.saturating_sub((available / 8).max(RESERVE_BYTES_MIN))
}

/// Plans the memory of a model.
///
/// # Errors
/// As [`plan_input`]; a budget that is too small.
pub fn memory_plan(
    opened: &Opened,
    options: &EngineOptions,
    block_bytes: usize,
) -> Result<MemoryPlan, EngineError> {
    MemoryPlan::new(&plan_input(opened, options, block_bytes)?)
}

/// Input of the memory plan; `block_bytes` is the storage's alignment.
///
/// # Errors
/// A context beyond the model's own; a damaged expert table.
pub fn plan_input<'a>(
    opened: &'a Opened,
    options: &EngineOptions,
    block_bytes: usize,
) -> Result<PlanInput<'a>, EngineError> {
    let limit = opened.config.max_position_embeddings;
    let ctx = options.ctx.unwrap_or(CTX_DEFAULT.min(limit)).max(1);
    if ctx > limit {
        return Err(EngineError::ContextTooLong { asked: ctx, limit });
    }
    let tokenizer =
        opened.checkpoint.aux_file("tokenizer.json").and_then(|path| std::fs::metadata(path).ok());
    let tokenizer_json_bytes = match opened.checkpoint.gguf() {
        Some(gguf) => gguf::tokenizer_json_bytes(gguf),
        None => tokenizer.map_or(0, |file| file.len()),
    };
    Ok(PlanInput {
        config: &opened.config,
        budget_bytes: options.memory_bytes.unwrap_or_else(default_budget_bytes),
        dense_bytes: opened.dense_bytes(),
        tokenizer_json_bytes,
        ctx,
        kv: options.kv(),
        slot_bytes: ExpertStore::slot_bytes(&opened.layout.experts, block_bytes)? as u64,
        expert_count: opened.expert_count(),
        threads: options.threads.unwrap_or_else(system::cores),
        slots: options.slots,
        chunk_tokens: options.chunk_tokens,
    })
}

fn load(
    opened: &Opened,
    options: &EngineOptions,
    plan: &MemoryPlan,
    storage: &Arc<dyn Storage>,
    files: &[FileId],
    progress: &mut dyn FnMut(Loading<'_>),
) -> Result<Loaded<CpuBackend>, EngineError> {
    let threads = options.threads.unwrap_or_else(system::cores);
    let mut backend = CpuBackend::new(CpuOptions { threads, isa: options.isa })?;
    let total = opened.dense_bytes();
    let mut done = 0;
    let mut on_bytes = |bytes: u64| {
        done += bytes;
        progress(Loading::Dense { done, total });
    };
    let mut loader = DenseLoader::new(&opened.checkpoint, storage.as_ref(), files, &mut on_bytes);
    let model = Model::load(&mut backend, &mut loader, opened.layout.prefix, &opened.config)?;
    let verify = options.verify.unwrap_or(Verify::FirstLoad);
    let table = opened.layout.experts.clone();
    let lookahead = options.lookahead.unwrap_or(true);
    let policy = options.policy.unwrap_or_default();
    let store_options = StoreOptions { slots: plan.slots, verify, lookahead, policy };
    let mut store = ExpertStore::new(table, files, storage.clone(), store_options)?;
    if let Some(path) = &options.trace {
        store.trace_to(path)?;
    }
    let rows = ScratchRows { pass_max: plan.chunk_tokens, parked_max: 0 };
    let scratch = Scratch::new(&mut backend, &opened.config, rows).map_err(models::ModelError::from)?;
    Ok(Loaded { backend, model, store, scratch })
}
