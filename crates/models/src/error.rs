//! Errors of this crate: faults of a configuration, a tensor or a step, with advice.

use std::path::PathBuf;

/// Why a model cannot be built or a step cannot be computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A back-end cannot go on.
    #[error(transparent)]
    Op(#[from] ops::OpError),
    /// A saved state is not as long as this model's.
    #[error(
        "a saved {what} has {got} bytes, and this model's have {expected}; it was saved by another model or version"
    )]
    StateLength {
        /// Page or recurrent state.
        what: &'static str,
        /// Bytes of this model's.
        expected: usize,
        /// Bytes that were saved.
        got: usize,
    },
    /// A key of config.json is absent and has no safe default.
    #[error(
        "{path}: config.json has no `{key}`, which {architecture} needs; restore the model's original config.json"
    )]
    MissingKey {
        /// The model directory.
        path: PathBuf,
        /// Key, with the section it belongs to.
        key: String,
        /// Architecture that was recognised.
        architecture: &'static str,
    },
    /// A key of config.json has a value that no model of the family can have.
    #[error("{path}: config.json: `{key}` is {got}, expected {expected}")]
    BadValue {
        /// The model directory.
        path: PathBuf,
        /// Key.
        key: String,
        /// Value found, shortened.
        got: String,
        /// What would be accepted.
        expected: String,
    },
    /// A GGUF file lacks metadata that has no safe default.
    #[error(
        "{path}: the metadata has no `{key}`, which {architecture} needs; the file is damaged or an old conversion, download a newer one"
    )]
    MissingMetadata {
        /// The file.
        path: PathBuf,
        /// Key.
        key: String,
        /// Architecture that was recognised.
        architecture: &'static str,
    },
    /// A GGUF file's metadata has a value that no model of the family can have.
    #[error(
        "{path}: metadata: `{key}` is {got}, expected {expected}; the file is damaged or needs a newer flash-moe, download another conversion"
    )]
    BadMetadata {
        /// The file.
        path: PathBuf,
        /// Key.
        key: String,
        /// Value found, shortened.
        got: String,
        /// What would be accepted.
        expected: String,
    },
    /// The names of a container cannot be made ours.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::CheckpointError),
    /// The architecture is not one that this version knows.
    #[error("{path}: {key} is {got}, which is not supported; this version runs {known}")]
    UnknownArchitecture {
        /// The model directory.
        path: PathBuf,
        /// Where the architecture is named.
        key: &'static str,
        /// What was found, quoted.
        got: String,
        /// Supported names.
        known: String,
    },
    /// Tensors that the architecture needs are not in the checkpoint.
    #[error(
        "{path}: {count} tensors are missing, the first is `{first}`; the download is incomplete or the files belong to another model"
    )]
    MissingTensors {
        /// The model directory.
        path: PathBuf,
        /// How many.
        count: usize,
        /// Name of the first, in model order.
        first: String,
    },
    /// The checkpoint has tensors that the architecture does not know.
    #[error(
        "{path}: {count} unknown tensors, the first is `{first}`; this checkpoint is not a plain model of {architecture}"
    )]
    UnknownTensors {
        /// The model directory.
        path: PathBuf,
        /// How many.
        count: usize,
        /// Name of the first, in sorted order.
        first: String,
        /// Architecture that was recognised.
        architecture: &'static str,
    },
    /// A tensor's shape contradicts config.json.
    #[error(
        "{path}: tensor `{name}` has shape {got:?}, expected {expected:?} by the model's configuration; the files are damaged or of different models, download them again"
    )]
    WrongShape {
        /// The file or directory.
        path: PathBuf,
        /// Tensor.
        name: String,
        /// Shape in the file.
        got: Vec<usize>,
        /// Shape by the configuration.
        expected: Vec<usize>,
    },
    /// A dense tensor's bytes do not have the checksum that the container recorded.
    #[error(
        "{path}: tensor `{name}` at offset {offset} is damaged (checksum {got:016x}, expected {expected:016x}); pack the model again or copy the file again"
    )]
    Checksum {
        /// The file.
        path: PathBuf,
        /// Tensor.
        name: String,
        /// Its first byte.
        offset: u64,
        /// Recorded.
        expected: u64,
        /// Computed from the bytes read.
        got: u64,
    },
    /// A router gave a value that is not a number: weights or activations are damaged.
    #[error(
        "layer {layer}: the router's output is not finite; the weights are damaged or were quantised too far"
    )]
    RouterNotFinite {
        /// Layer.
        layer: usize,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The expert store refused a request.
    #[error(transparent)]
    Experts(#[from] experts::ExpertsError),
    /// Reading or checking the weights of an expert failed; shared, since it may concern several sequences.
    #[error("{0}")]
    Expert(std::sync::Arc<experts::ExpertsError>),
    /// Reading dense weights failed.
    #[error(transparent)]
    Storage(#[from] storage::StorageError),
    /// A tensor's bytes and format do not agree.
    #[error("{path}: tensor `{name}`: {source}")]
    Tensor {
        /// The file.
        path: PathBuf,
        /// Tensor.
        name: String,
        /// What is wrong.
        source: tensor::TensorError,
    },
}
