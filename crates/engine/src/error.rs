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
    /// A text to evaluate is too short.
    #[error("the text has {tokens} tokens, at least 2 are needed")]
    TextTooShort {
        /// Tokens.
        tokens: usize,
    },
    /// The file that a drive without a model is measured with cannot be written.
    #[error(
        "{path}: cannot write a temporary file to measure the drive ({source}); choose a directory with --disk-path"
    )]
    ProbeFile {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The disk is too full for that file.
    #[error(
        "{dir}: a temporary file to measure the drive takes {needed}, and {free} are free; choose another directory with \
         --disk-path"
    )]
    ProbeFileTooLarge {
        /// Where it was to be.
        dir: PathBuf,
        /// Its size, readable.
        needed: String,
        /// Free space, readable.
        free: String,
    },
    /// Two models whose tokens mean different things.
    #[error(
        "{model} and {reference} have different vocabularies ({detail}), so that their predictions cannot be compared; \
         --against takes another precision or version of the same model"
    )]
    VocabulariesDiffer {
        /// The model.
        model: PathBuf,
        /// The reference.
        reference: PathBuf,
        /// Where they differ.
        detail: String,
    },
    /// The temporary file for a reference's logits failed.
    #[error(
        "{dir}: the temporary file for the reference's logits failed ({source}); choose a directory with --spill-dir"
    )]
    Spill {
        /// Where it is.
        dir: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The disk is too full for a reference's logits.
    #[error(
        "{dir}: the reference's logits need {needed}, and {free} are free; use a shorter --text, another --spill-dir, or \
         --memory {suggestion} or more for both models at once"
    )]
    SpillTooLarge {
        /// Where they were to be.
        dir: PathBuf,
        /// Their size, readable.
        needed: String,
        /// Free space, readable.
        free: String,
        /// Budget in which nothing needs to be written, in the form that the flag takes.
        suggestion: String,
    },
    /// Evaluation windows that make no sense.
    #[error("--stride {stride} must be from 1 to --ctx {ctx}")]
    BadStride {
        /// Stride asked for.
        stride: usize,
        /// Window.
        ctx: usize,
    },
}
