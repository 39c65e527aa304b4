//! The handle: requests in, events out.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use checkpoint::Checkpoint;
use models::ModelSpec;
use sampling::GenerationDefaults;
use storage::{FileId, IoEngine, Storage};
use tokenizer::{Message, TemplateOptions, Tokenizer, TokenizerError};

use crate::channel::{Channel, Item, StillRunning};
use crate::kv_cache::KvCache;
use crate::open::{Compute, Loading, Opened, Source, load, open_files, open_storage, probe_memory};
use crate::options::ResolvedOptions;
use crate::plan::MemoryPlan;
use crate::runtime::Runtime;
use crate::session_cache::{SessionCache, model_key};
use crate::stats::EngineStats;
use crate::worker::{Checked, Inbox, Limits, Parts, Sequence, Worker};
use crate::{EngineError, EngineOptions, Event, Generation, Logits, Priority, Prompt, Request, RunStats};

/// A loaded model. Clones are handles on the same one; it is closed when the last of them is gone.
///
/// Requests of all handles share passes through the model, and one request's result does not depend
/// on the others.
#[derive(Clone)]
pub struct Engine(Arc<Handle>);

pub(crate) struct Handle {
    pub(crate) opened: Opened,
    pub(crate) options: ResolvedOptions,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) files: Vec<FileId>,
    pub(crate) compute: Compute,
    pub(crate) inbox: Arc<Inbox>,
    defaults: GenerationDefaults,
    tokenizer: Option<Arc<Tokenizer>>,
    plan: Arc<Mutex<MemoryPlan>>,
    halve_slots: Arc<AtomicBool>,
    next_id: AtomicU64,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.inbox.close();
        if let Some(thread) = self.thread.take() {
            // It has told its requests what it knows; a panic is already on stderr.
            let _ = thread.join();
        }
    }
}

impl Engine {
    /// Opens a model, a directory or a GGUF file: plans the memory, then loads the dense weights.
    /// `progress` is told both.
    ///
    /// # Errors
    /// Anything wrong with the files, a budget that is too small, a read that failed.
    pub fn open(
        path: &Path,
        options: EngineOptions,
        progress: &mut dyn FnMut(Loading<'_>),
    ) -> Result<Engine, EngineError> {
        let opened = Opened::new(path)?;
        let options = ResolvedOptions::new(&options, &opened.config)?;
        let (storage, mut defaults) = (open_storage(&options)?, opened.generation_defaults()?);
        let plan = opened.plan(&options, storage.block_bytes())?;
        progress(Loading::Planned(&plan));
        probe_memory(&plan)?;
        let tokenizer = opened.tokenizer_for(options.input)?;
        for id in tokenizer.iter().flat_map(|tokenizer| tokenizer.end_token_ids()) {
            // The vocabulary may have tokens that the model has not.
            if (id as usize) < opened.config.vocab_size && !defaults.eos_token_ids.contains(&id) {
                defaults.eos_token_ids.push(id);
            }
        }
        let files = open_files(&opened.checkpoint, storage.as_ref())?;
        if let Some(reason) = storage.fallback_reason() {
            progress(Loading::IoFallback(&reason));
        }
        if let Some(reason) = storage.engine_fallback() {
            progress(Loading::EngineFallback(&reason));
        }
        let source = Source { opened: &opened, storage: &storage, files: &files };
        tracing::info!(?plan, "memory");
        let (runtime, compute) =
            tracing::info_span!("load").in_scope(|| load(&source, &options, &plan, progress))?;
        let mut handle = Handle {
            inbox: Arc::new(Inbox::new(options.queue)),
            opened,
            storage,
            files,
            compute,
            defaults,
            tokenizer,
            plan: Arc::new(Mutex::new(plan)),
            halve_slots: Arc::default(),
            next_id: AtomicU64::new(0),
            thread: None,
            options,
        };
        handle.start(Box::new(runtime))?;
        Ok(Engine(Arc::new(handle)))
    }

    /// The model's hyper-parameters.
    pub fn config(&self) -> &ModelSpec {
        &self.0.opened.config
    }

    /// Sampling defaults and end tokens of the model.
    pub fn defaults(&self) -> &GenerationDefaults {
        &self.0.defaults
    }

    /// Who has how much of the memory budget now.
    pub fn plan(&self) -> MemoryPlan {
        self.0.plan()
    }

    /// Why reads go through the page cache although direct reads were requested.
    pub fn io_fallback(&self) -> Option<String> {
        self.0.storage.fallback_reason()
    }

    /// The reader: thread pool or io_uring.
    pub fn io_engine(&self) -> IoEngine {
        self.0.storage.engine()
    }

    /// The model's tokenizer.
    ///
    /// # Errors
    /// There is none, or its files are damaged.
    pub fn tokenizer(&self) -> Result<&Tokenizer, EngineError> {
        match &self.0.tokenizer {
            Some(tokenizer) => Ok(tokenizer),
            // Why there is none is known to who looks again.
            None => Err(match self.0.opened.tokenizer() {
                Err(error) => error,
                Ok(_) => EngineError::NoTokenizer { path: self.checkpoint().root().into() },
            }),
        }
    }

    /// A request with the model's own sampling defaults and end tokens, as long as the context
    /// allows.
    pub fn request(&self, prompt: impl Into<Prompt>) -> Request {
        let (prompt, defaults) = (prompt.into(), self.defaults());
        Request {
            continues_text: matches!(prompt, Prompt::Text(_)),
            prompt,
            max_tokens: usize::MAX,
            sampling: defaults.params,
            stop_ids: defaults.eos_token_ids.clone(),
            priority: Priority::default(),
            prefix_marks: Vec::new(),
            logits: Logits::default(),
            forced: Vec::new(),
        }
    }

    /// Hands in a request. Its prompt is rendered and tokenised here, by the caller's thread.
    ///
    /// ```
    /// use engine::{Engine, EngineOptions, Event, Request};
    ///
    /// # let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/qwen35moe/published").as_ref();
    /// # let memory_bytes = Some(1 << 30);
    /// let options = EngineOptions { parallel: Some(2), ctx: Some(256), memory_bytes, ..Default::default() };
    /// let engine = Engine::open(model, options, &mut |_| {})?;
    /// let request = |id| Request { max_tokens: 4, stop_ids: vec![], ..engine.request(vec![id, 2, 3]) };
    /// let (first, second) = (engine.submit(request(1))?, engine.submit(request(7))?);
    /// drop(second); // Cancels it, and nothing else.
    /// let tokens = first.filter(|event| matches!(event, Ok(Event::Token { .. })));
    /// assert_eq!(tokens.count(), 4);
    /// # Ok::<(), engine::EngineError>(())
    /// ```
    ///
    /// # Errors
    /// A prompt that is empty, does not fit or cannot be encoded; unusable sampling parameters;
    /// [`EngineError::QueueFull`]; [`EngineError::Closed`].
    pub fn submit(&self, mut request: Request) -> Result<Running, EngineError> {
        let tokens = self.prompt_tokens(&request.prompt)?;
        if let Prompt::Chat { messages, options } = &request.prompt {
            request.prefix_marks.extend(self.system_mark(messages, options, &tokens));
        }
        self.check(&tokens, &request)?;
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        let inbox = &self.0.inbox;
        let channel = Arc::new(Channel::new(request.logits != Logits::None, inbox.closing.clone()));
        let checked = Checked { id, request, tokens, ctx: self.0.options.ctx };
        inbox.submit(Sequence::new(checked, self.0.tokenizer.as_ref(), channel.clone())?)?;
        Ok(Running { canceller: Canceller { channel, inbox: inbox.clone() } })
    }

    /// Runs a request and blocks until it ends. `on_event` may stop it by returning
    /// [`ControlFlow::Break`], also in the middle of a prompt; what was generated until then is
    /// returned.
    ///
    /// # Errors
    /// As [`Engine::submit`]; what went wrong while it ran.
    pub fn generate(
        &self,
        request: Request,
        mut on_event: impl FnMut(&Event) -> ControlFlow<()>,
    ) -> Result<Generation, EngineError> {
        let running = self.submit(request)?;
        let canceller = running.canceller();
        for event in running {
            match event? {
                Event::Finished(generation) => return Ok(*generation),
                event if on_event(&event).is_break() => canceller.cancel(),
                _ => {}
            }
        }
        Err(EngineError::Closed)
    }

    /// The tokens of a prompt.
    ///
    /// # Errors
    /// There is no tokenizer or template, or it does not accept the text; [`EngineError::PromptTooLong`].
    pub fn prompt_tokens(&self, prompt: &Prompt) -> Result<Vec<u32>, EngineError> {
        let (ctx, limit) = (self.0.options.ctx, self.config().max_position_embeddings);
        let tokens = match prompt {
            Prompt::Tokens(tokens) => return Ok(tokens.clone()),
            Prompt::Text(text) => self.tokenizer()?.encode_within(text, true, ctx),
            Prompt::Chat { messages, options } => {
                let options = TemplateOptions { add_generation_prompt: true, ..options.clone() };
                self.tokenizer()?.encode_chat_within(messages, &options, ctx)
            }
        };
        tokens.map_err(|error| match error {
            TokenizerError::TooManyIds { count: prompt, exact, .. } => {
                EngineError::PromptTooLong { prompt, exact, ctx, limit }
            }
            error => error.into(),
        })
    }

    /// Where the system message ends in the tokens of a conversation: others may begin with it too.
    pub(crate) fn system_mark(
        &self,
        messages: &[Message],
        options: &TemplateOptions,
        tokens: &[u32],
    ) -> Option<usize> {
        let system = messages.first().filter(|message| message.role == "system")?;
        // A template that takes no system message alone has no such place that we could find.
        let alone = self.tokenizer().ok()?.encode_chat(std::slice::from_ref(system), options).ok()?;
        Some(alone.iter().zip(tokens).take_while(|(a, b)| a == b).count())
    }

    fn check(&self, tokens: &[u32], request: &Request) -> Result<(), EngineError> {
        let (vocab, ctx) = (self.config().vocab_size, self.0.options.ctx);
        if tokens.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        // A request for logits alone needs no room for a token.
        if tokens.len() + usize::from(request.max_tokens > 0) > ctx {
            let limit = self.config().max_position_embeddings;
            return Err(EngineError::PromptTooLong { prompt: tokens.len(), exact: true, ctx, limit });
        }
        match tokens.iter().chain(&request.forced).find(|id| **id as usize >= vocab) {
            Some(id) => Err(EngineError::TokenOutOfRange { id: *id, vocab }),
            None => Ok(()),
        }
    }

    /// Changes the budget of the whole process: expert slots are given back to the system, or more
    /// are taken; all else stays as it was planned. Running requests go on, and answers do not
    /// change. Returns the number of slots.
    ///
    /// # Errors
    /// [`EngineError::BudgetTooSmall`] if less than the experts of one token would fit,
    /// [`EngineError::Model`] if there is no memory for more; the slots stay as they were then.
    pub fn set_memory_budget(&self, bytes: u64) -> Result<usize, EngineError> {
        self.0.inbox.call(move |worker| worker.set_memory_budget(bytes))?
    }

    /// A flag that has half of the expert slots (but never fewer than one token's experts of a
    /// layer need) given back to the system before the next pass when it is set. The pass clears
    /// it. For signal handlers.
    pub fn halve_slots_flag(&self) -> Arc<AtomicBool> {
        self.0.halve_slots.clone()
    }

    /// Writes the rest of the trace that [`EngineOptions::trace`] began.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn flush_trace(&self) -> Result<(), EngineError> {
        Ok(self.0.inbox.call(|worker| worker.runtime.flush_trace())??)
    }

    /// Requests, pages and reads at this moment, between two passes.
    ///
    /// # Errors
    /// [`EngineError::Closed`].
    pub fn stats(&self) -> Result<EngineStats, EngineError> {
        self.0.inbox.call(|worker| worker.stats())
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.0
    }

    fn checkpoint(&self) -> &Checkpoint {
        &self.0.opened.checkpoint
    }
}

impl Handle {
    fn plan(&self) -> MemoryPlan {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn sessions(&self, recurrent: bool) -> Result<Option<SessionCache>, EngineError> {
        let Some((dir, bytes_max)) = &self.options.session_cache else { return Ok(None) };
        let form = format!("{} {} {}", env!("CARGO_PKG_VERSION"), self.options.kv, self.compute.isa);
        let key = model_key(self.opened.checkpoint.files(), &form);
        let inbox = self.inbox.clone();
        SessionCache::open((dir, *bytes_max), key, recurrent, move || inbox.poke()).map(Some)
    }

    fn start(&mut self, runtime: Box<dyn Runtime>) -> Result<(), EngineError> {
        let (plan, config) = (self.plan(), &self.opened.config);
        let worker = Worker::new(Parts {
            runtime,
            cache: KvCache::new(plan.pages, plan.states),
            limits: Limits {
                parallel: plan.parallel,
                chunk_tokens: plan.chunk_tokens,
                pass_time_max: self.options.pass_time_max,
                layers: config.num_layers(),
                slots_min: config.per_token_max(),
            },
            inbox: self.inbox.clone(),
            about: RunStats {
                expert_slots: plan.slots,
                experts_per_token: config.per_token_max(),
                memory_budget_bytes: plan.budget_bytes,
                io_fallback: self.storage.fallback_reason(),
                kv: plan.kv.to_string(),
                lossy: self.options.lossy.clone(),
                ..RunStats::default()
            },
            plan: self.plan.clone(),
            halve_slots: self.halve_slots.clone(),
            sessions: self.sessions(plan.states > 0)?,
        });
        let thread = std::thread::Builder::new().name("engine".into()).spawn(move || worker.run());
        self.thread = Some(thread.map_err(|source| EngineError::Thread { source })?);
        Ok(())
    }
}

/// A request under way: an iterator over its events. The last one is [`Event::Finished`] or an
/// error.
///
/// The engine does not wait for a reader: while too many events were not taken, the request just
/// does not go on. Dropping this cancels the request, and no other.
pub struct Running {
    canceller: Canceller,
}

impl Running {
    /// Ends the request as soon as possible; the tokens generated until then are its result.
    pub fn cancel(&self) {
        self.canceller.cancel();
    }

    /// The next event, as the iterator gives it, if one comes within `time`.
    ///
    /// # Errors
    /// [`StillRunning`] if none did.
    pub fn next_within(&mut self, time: Duration) -> Result<Option<Item>, StillRunning> {
        Ok(self.taken(self.canceller.channel.next(Some(time))?))
    }

    fn taken(&self, next: Option<(Item, bool)>) -> Option<Item> {
        let (item, was_full) = next?;
        if was_full {
            self.canceller.inbox.poke();
        }
        Some(item)
    }

    /// A handle that cancels the request from another thread.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }
}

impl Iterator for Running {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let next = self.canceller.channel.next(None);
        // Without a time there is always a next item, or the end.
        self.taken(next.ok().flatten())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// Cancels one request.
#[derive(Clone)]
pub struct Canceller {
    channel: Arc<Channel>,
    inbox: Arc<Inbox>,
}

impl Canceller {
    /// Ends the request as soon as can be: within one layer's time if it is alone.
    pub fn cancel(&self) {
        self.channel.cancel();
        self.inbox.poke();
    }
}
