//! Errors of the API. Most come from below and pass through: they already say what, where and what
//! to do. Sizes are fields, so that a caller can say them in its own words.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use models::ModelError;
use ops::KvFormat;

use crate::system::human_bytes;

/// Why a model cannot be opened or a request cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The files are not a readable checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::CheckpointError),
    /// The checkpoint is not a model that this version runs, or a step failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The machine lacks the requested instruction set.
    #[error(transparent)]
    Isa(#[from] kernels_cpu::MissingIsa),
    /// A pass failed as a whole, and with it every request that took part.
    #[error(transparent)]
    Pass(Arc<ModelError>),
    /// Reading failed.
    #[error(transparent)]
    Storage(#[from] storage::StorageError),
    /// The expert store cannot be set up.
    #[error(transparent)]
    Experts(#[from] experts::ExpertsError),
    /// Text cannot be encoded, decoded or rendered.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::TokenizerError),
    /// A sampling parameter is unusable.
    #[error(transparent)]
    Sampling(#[from] sampling::SamplingError),
    /// The least that works does not fit into the budget.
    #[error("{0}")]
    BudgetTooSmall(Box<Shortfall>),
    /// The system does not give the memory that was planned.
    #[error(
        "the system does not give this process {} of memory: a limit on its address space, or too little is \
         free",
        human_bytes(*bytes)
    )]
    NoMemory {
        /// What was asked for, bytes.
        bytes: u64,
    },
    /// The prompt does not leave room for a single new token.
    #[error(
        "the prompt has {}{prompt} tokens and {}",
        if *exact { "" } else { "at least " },
        holder(*prompt, *ctx, *limit)
    )]
    PromptTooLong {
        /// Tokens of the prompt, or a number that it has at least.
        prompt: usize,
        /// Whether they were counted.
        exact: bool,
        /// Tokens of the context.
        ctx: usize,
        /// Tokens of the longest context of this model.
        limit: usize,
    },
    /// The requested context is longer than the model's own.
    #[error("a context of {asked} tokens is beyond the model's own limit of {limit}")]
    ContextTooLong {
        /// Requested tokens.
        asked: usize,
        /// `max_position_embeddings`.
        limit: usize,
    },
    /// There is nothing to compute.
    #[error("the prompt is empty; give at least one token")]
    EmptyPrompt,
    /// A token id is not in the vocabulary.
    #[error("token id {id} is not in the vocabulary of {vocab} entries")]
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// Entries.
        vocab: usize,
    },
    /// A logit is NaN or infinite: the weights or the activations are damaged.
    #[error(
        "the logit of token {token} after position {position} is {value}, not a finite number; the weights \
         are damaged or were converted wrongly, get the model again or another conversion of it"
    )]
    LogitsNotFinite {
        /// Position of the token that the logits come after.
        position: usize,
        /// Entry of the vocabulary.
        token: usize,
        /// NaN or an infinity.
        value: f32,
    },
    /// As many requests wait as may.
    #[error("{waiting} requests wait already; try again later")]
    QueueFull {
        /// Requests that wait.
        waiting: usize,
    },
    /// The system starts no more threads.
    #[error("cannot start a thread: {source}")]
    Thread {
        /// The system's error.
        source: std::io::Error,
    },
    /// The engine is closed, or its thread ended by a fault of its own.
    #[error("the engine is closed")]
    Closed,
    /// The model directory has no tokenizer.
    #[error("{path}: there is no tokenizer.json; copy the model's original tokenizer files there")]
    NoTokenizer {
        /// The model directory.
        path: PathBuf,
    },
    /// The GGUF file has no tokenizer.
    #[error(
        "{path}: the file has no tokenizer (`tokenizer.ggml.tokens`); use a complete conversion of the model"
    )]
    NoGgufTokenizer {
        /// The file.
        path: PathBuf,
    },
    /// The model was not made for conversations.
    #[error("{path}: this model has no chat template, so it knows no turns")]
    NoChatTemplate {
        /// The model.
        path: PathBuf,
    },
    /// The directory for sessions cannot be used.
    #[error("{path}: cannot keep sessions there ({source})")]
    SessionCache {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// The bound that a prompt exceeds.
fn holder(prompt: usize, ctx: usize, limit: usize) -> String {
    match prompt < limit {
        true => format!("the context holds {ctx}"),
        false => format!("the model's own limit is {limit}"),
    }
}

/// A budget that is too small, and the least that works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// Budget, bytes.
    pub budget_bytes: u64,
    /// Least that works, bytes.
    pub least_bytes: u64,
    /// Of that, dense weights.
    pub dense_bytes: u64,
    /// Of that, keys, values and recurrent states.
    pub state_bytes: u64,
    /// Of that, expert slots.
    pub slots_bytes: u64,
    /// Their number.
    pub slots: usize,
    /// Context, tokens.
    pub ctx: usize,
    /// Requests that run at once.
    pub parallel: usize,
    /// Number format of keys and values.
    pub kv: KvFormat,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shortfall { slots, ctx, parallel, kv, .. } = self;
        let [budget, least, dense, state, experts] =
            [self.budget_bytes, self.least_bytes, self.dense_bytes, self.state_bytes, self.slots_bytes]
                .map(human_bytes);
        let rest = human_bytes(self.least_bytes - self.dense_bytes - self.state_bytes - self.slots_bytes);
        let sequences = if *parallel == 1 { String::new() } else { format!("{parallel} × ") };
        write!(
            f,
            "memory budget of {budget} is too small: this model needs at least {least} (dense weights {dense}, state \
             for {sequences}{ctx} tokens (kv {kv}) {state}, {slots} expert slots {experts}, rest {rest})"
        )
    }
}
