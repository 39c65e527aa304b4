//! Errors of the API. Most come from below and pass through: they already say what, where and what to do.

use std::path::PathBuf;

/// Why a model cannot be opened or a request cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The files are not a readable checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::CheckpointError),
    /// The checkpoint is not a model that this version runs, or a step failed.
    #[error(transparent)]
    Model(#[from] models::ModelError),
    /// The machine lacks the instruction set that was asked for.
    #[error(transparent)]
    Isa(#[from] kernels_cpu::MissingIsa),
    /// Reading failed.
    #[error(transparent)]
    Storage(#[from] storage::StorageError),
    /// The expert store cannot be set up.
    #[error(transparent)]
    Experts(#[from] experts::ExpertsError),
    /// Text cannot be encoded, decoded or rendered.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::TokenizerError),
    /// A sampling parameter or the logits are unusable.
    #[error(transparent)]
    Sampling(#[from] sampling::SamplingError),
    /// The least that works does not fit into the budget.
    #[error(
        "memory budget of {budget} is too small: this model needs at least {least} ({detail}); use --memory {suggestion} \
         or more, or a smaller --ctx"
    )]
    BudgetTooSmall {
        /// Budget, readable.
        budget: String,
        /// Least that works, readable.
        least: String,
        /// Tiers of the least.
        detail: String,
        /// Least that works in the form that the flag takes.
        suggestion: String,
    },
    /// The prompt does not leave room for a single new token.
    #[error(
        "the prompt has {prompt} tokens and the context holds {ctx}; use --ctx {suggestion} or more, or a shorter prompt"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens of the context.
        ctx: usize,
        /// What would do.
        suggestion: usize,
    },
    /// The context asked for is beyond what the model was made for.
    #[error("--ctx {asked} is beyond the model's own limit of {limit} tokens")]
    ContextTooLong {
        /// Tokens asked for.
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
    /// generation_config.json cannot be used.
    #[error("{path}: {reason}")]
    GenerationConfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}
