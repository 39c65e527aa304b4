//! Errors of measurements. Most come from below and pass through.

use std::path::PathBuf;

/// Why something cannot be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// The model cannot be opened, or a request failed.
    #[error(transparent)]
    Engine(#[from] engine::EngineError),
    /// The files are not a readable checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::CheckpointError),
    /// The checkpoint is not a model that this version runs.
    #[error(transparent)]
    Model(#[from] models::ModelError),
    /// Reading failed.
    #[error(transparent)]
    Storage(#[from] storage::StorageError),
    /// The expert table makes no sense.
    #[error(transparent)]
    Experts(#[from] experts::ExpertsError),
    /// Text cannot be encoded.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::TokenizerError),
    /// Prompt and decoded tokens do not fit into the context together.
    #[error("{prompt} tokens of prompt and {decode} decoded ones are more than the context's {ctx}")]
    BeyondContext {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens decoded after it.
        decode: usize,
        /// Tokens of the context.
        ctx: usize,
    },
    /// A stream that was to decode while something else was measured had no more tokens left.
    #[error("a stream ended after {tokens} tokens while others were still being measured")]
    StreamEnded {
        /// Tokens that it decoded.
        tokens: usize,
    },
    /// A text is too short.
    #[error("the text has {tokens} tokens, at least 2 are needed")]
    TextTooShort {
        /// Tokens.
        tokens: usize,
    },
    /// Evaluation windows that make no sense.
    #[error("a stride of {stride} tokens is not from 1 to the window's {ctx}")]
    BadStride {
        /// Stride asked for.
        stride: usize,
        /// Window.
        ctx: usize,
    },
    /// The file that a drive without a model is measured with cannot be written.
    #[error("{path}: cannot write a temporary file to measure the drive ({source})")]
    ProbeFile {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The disk is too full for that file.
    #[error(
        "{dir}: a temporary file to measure the drive takes {needed_bytes} bytes, and {free_bytes} are free"
    )]
    ProbeFileTooLarge {
        /// Where it was to be.
        dir: PathBuf,
        /// Its size, bytes.
        needed_bytes: u64,
        /// Free space, bytes.
        free_bytes: u64,
    },
    /// Two models whose tokens mean different things.
    #[error(
        "{model} and {reference} have different vocabularies ({detail}), so that their predictions cannot be compared"
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
    #[error("{dir}: the temporary file for the reference's logits failed ({source})")]
    Spill {
        /// Where it is.
        dir: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The disk is too full for a reference's logits.
    #[error("{dir}: the reference's logits take {needed_bytes} bytes, and {free_bytes} are free")]
    SpillTooLarge {
        /// Where they were to be.
        dir: PathBuf,
        /// Their size, bytes.
        needed_bytes: u64,
        /// Free space, bytes.
        free_bytes: u64,
        /// Memory budget in which nothing needs to be written, bytes.
        enough_memory_bytes: u64,
    },
}
