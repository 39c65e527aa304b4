//! Options of opening a model, and the values they resolve to.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use experts::{PolicyKind, Verify};
use kernels_cpu::Isa;
use models::ModelSpec;
use ops::KvFormat;
use storage::{IoEngine, IoMode, Storage};

use crate::{EngineError, system};

/// Default context, tokens.
const CTX_DEFAULT: usize = 4096;
/// Default number of reads in flight.
const IO_THREADS_DEFAULT: usize = 8;
/// Default bound on waiting requests.
const QUEUE_DEFAULT: usize = 64;
/// Default bound on the time of a pass.
const PASS_TIME_DEFAULT: Duration = Duration::from_secs(1);
/// Default bound on the disk that sessions take, bytes.
const SESSION_CACHE_BYTES_DEFAULT: u64 = 8 << 30;
/// Kept free for the rest of the system when no budget is given: 1/8 of the available memory, at least
/// this.
const RESERVE_BYTES_MIN: u64 = 512 << 20;
/// Budget where the system does not tell free memory.
const BUDGET_FALLBACK_BYTES: u64 = 4 << 30;

/// Kind of prompts to come. A model that lacks a part for them is refused before its weights are loaded.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Input {
    /// Token ids; a model without a tokenizer will do.
    #[default]
    Tokens,
    /// Text.
    Text,
    /// Conversations.
    Chat,
}

/// Choices at load time. The default is what most people want: fit into what is free, direct reads,
/// all cores.
#[derive(Clone, Default)]
pub struct EngineOptions {
    /// Bound on the whole process, bytes; `None`: memory that is free now, less a reserve.
    pub memory_bytes: Option<u64>,
    /// Expert slots instead of the number that the budget gives (tests and measurements).
    pub slots: Option<usize>,
    /// Longest sequence, tokens; `None`: 4096 or the model's own limit if that is less.
    pub ctx: Option<usize>,
    /// Number format of keys and values; `None`: f16.
    pub kv: Option<KvFormat>,
    /// Longest prompt chunk, tokens; `None`: as the budget allows.
    pub chunk_tokens: Option<usize>,
    /// Requests that run at once; `None`: 1.
    pub parallel: Option<usize>,
    /// Length of a text that is kept in memory with its tokens beside the requests, bytes.
    pub text_bytes: u64,
    /// Tokens for whose keys and values there is room, of all requests together; `None`: `parallel`
    /// times the context. Requests wait for room.
    pub kv_tokens: Option<usize>,
    /// Recurrent states that are kept to go back to, where the model has them; `None`: a small
    /// share of the budget.
    pub snapshots: Option<usize>,
    /// Requests that may wait for their turn; `None`: 64.
    pub queue: Option<usize>,
    /// Longest pass in which a prompt has the company of sequences that decode; `None`: 1 s.
    pub pass_time_max: Option<Duration>,
    /// Kind of prompts to come.
    pub input: Input,
    /// Directory in which computed prefixes outlive the process.
    pub session_cache: Option<PathBuf>,
    /// Disk that they may take, bytes; `None`: 8 GiB.
    pub session_cache_bytes: Option<u64>,
    /// Compute threads; `None`: one per core that the process may use.
    pub threads: Option<usize>,
    /// Reads in flight; `None`: 8.
    pub io_threads: Option<usize>,
    /// Direct or through the page cache; `None`: direct, with a fall-back that is reported.
    pub io: Option<IoMode>,
    /// The reader; `None`: the pool of threads.
    pub io_engine: Option<IoEngine>,
    /// Whether checksums are verified on the first load of a record or on each; `None`: first.
    pub verify: Option<Verify>,
    /// Whether experts that the next layer will probably need are prefetched; `None`: yes, where it
    /// pays.
    pub lookahead: Option<bool>,
    /// Which expert makes room for another; `None`: [`PolicyKind::Adaptive`].
    pub policy: Option<PolicyKind>,
    /// File to record the router's decisions in (docs/trace-format.md).
    pub trace: Option<PathBuf>,
    /// Instruction set of the kernels; `None`: the best that the processor has.
    pub isa: Option<Isa>,
    /// Storage to read from instead of the file system (fault injection in tests).
    pub storage: Option<Arc<dyn Storage>>,
}

impl EngineOptions {
    /// Number format of keys and values.
    pub fn kv(&self) -> KvFormat {
        self.kv.unwrap_or_default()
    }

    /// The lossy options that are on, as reports name them: the one place that knows which are.
    pub fn lossy(&self) -> Vec<String> {
        let kv = self.kv();
        kv.is_lossy().then(|| format!("kv {kv}")).into_iter().collect()
    }
}

/// The choices with every default filled in, for one model: the one place that knows the defaults.
#[derive(Clone)]
#[allow(missing_docs, reason = "as in EngineOptions; `None` is left where the memory plan decides")]
pub struct ResolvedOptions {
    pub memory_bytes: u64,
    pub slots: Option<usize>,
    pub ctx: usize,
    pub kv: KvFormat,
    pub chunk_tokens: Option<usize>,
    pub parallel: usize,
    pub text_bytes: u64,
    pub kv_tokens: usize,
    pub snapshots: Option<usize>,
    pub queue: usize,
    pub pass_time_max: Duration,
    pub input: Input,
    pub session_cache: Option<(PathBuf, u64)>,
    pub threads: usize,
    pub io_threads: usize,
    pub io: IoMode,
    pub io_engine: IoEngine,
    pub verify: Verify,
    pub lookahead: bool,
    pub policy: PolicyKind,
    pub trace: Option<PathBuf>,
    pub isa: Option<Isa>,
    pub storage: Option<Arc<dyn Storage>>,
    pub lossy: Vec<String>,
}

impl ResolvedOptions {
    /// The choices for a model.
    ///
    /// # Errors
    /// [`EngineError::ContextTooLong`].
    pub fn new(options: &EngineOptions, config: &ModelSpec) -> Result<Self, EngineError> {
        let limit = config.max_position_embeddings;
        let ctx = options.ctx.unwrap_or(CTX_DEFAULT.min(limit)).max(1);
        if ctx > limit {
            return Err(EngineError::ContextTooLong { asked: ctx, limit });
        }
        let parallel = options.parallel.unwrap_or(1).max(1);
        let session_bytes = options.session_cache_bytes.unwrap_or(SESSION_CACHE_BYTES_DEFAULT);
        Ok(Self {
            memory_bytes: options.memory_bytes.unwrap_or_else(default_budget_bytes),
            slots: options.slots,
            ctx,
            kv: options.kv(),
            chunk_tokens: options.chunk_tokens,
            parallel,
            text_bytes: options.text_bytes,
            kv_tokens: options.kv_tokens.unwrap_or(parallel.saturating_mul(ctx)).max(ctx),
            snapshots: options.snapshots,
            queue: options.queue.unwrap_or(QUEUE_DEFAULT),
            pass_time_max: options.pass_time_max.unwrap_or(PASS_TIME_DEFAULT),
            input: options.input,
            session_cache: options.session_cache.clone().map(|dir| (dir, session_bytes)),
            threads: options.threads.unwrap_or_else(system::cores),
            io_threads: options.io_threads.unwrap_or(IO_THREADS_DEFAULT),
            io: options.io.unwrap_or(IoMode::Direct),
            io_engine: options.io_engine.unwrap_or_default(),
            verify: options.verify.unwrap_or(Verify::FirstLoad),
            lookahead: options.lookahead.unwrap_or(true),
            policy: options.policy.unwrap_or_default(),
            trace: options.trace.clone(),
            isa: options.isa,
            storage: options.storage.clone(),
            lossy: options.lossy(),
        })
    }
}

/// Bytes that a process without a given budget may plan with.
pub fn default_budget_bytes() -> u64 {
    let available = system::available_memory_bytes().unwrap_or(BUDGET_FALLBACK_BYTES);
    available.saturating_sub((available / 8).max(RESERVE_BYTES_MIN))
}
