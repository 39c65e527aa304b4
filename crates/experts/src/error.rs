//! Errors on the way from an expert's number to its matrices.

use std::path::PathBuf;
use std::sync::Arc;

use storage::StorageError;
use tensor::TensorError;

use crate::trace::TraceError;

/// Error of the expert store. Causes are printed as part of the message and are not a `source()` as
/// well, hence the raw identifiers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExpertsError {
    /// A store without slots.
    #[error("an expert store needs at least one slot, got 0; raise the memory budget")]
    NoSlots,
    /// The slots could not be allocated, or a file could not be examined.
    #[error("{source}")]
    Storage {
        /// The error of storage.
        r#source: StorageError,
    },
    /// A layer that the model does not have.
    #[error("layer {layer} asked for; the model has {layers} layers")]
    NoSuchLayer {
        /// The layer.
        layer: u32,
        /// How many there are.
        layers: usize,
    },
    /// An expert that the layer does not have.
    #[error("layer {layer}, expert {expert} asked for; the layer has {experts} experts")]
    NoSuchExpert {
        /// The layer.
        layer: u32,
        /// The expert.
        expert: u32,
        /// How many the layer has.
        experts: usize,
    },
    /// The same expert twice in one fetch.
    #[error("layer {layer}, expert {expert} is listed twice in one fetch; list each expert once")]
    Duplicate {
        /// The layer.
        layer: u32,
        /// The expert.
        expert: u32,
    },
    /// The read of an expert failed.
    #[error("layer {layer}, expert {expert}: {source}")]
    Read {
        /// The layer.
        layer: u32,
        /// The expert.
        expert: u32,
        /// Path, offset, expected and got.
        r#source: StorageError,
    },
    /// The bytes of an expert are not those that were written.
    #[error(
        "{}: layer {layer}, expert {expert} at offset {offset}: checksum mismatch, expected \
         {expected:016x}, got {got:016x}; the file is damaged, pack or copy it again",
        path.display()
    )]
    Checksum {
        /// The layer.
        layer: u32,
        /// The expert.
        expert: u32,
        /// File of the expert's first extent.
        path: PathBuf,
        /// Start of the expert's first extent in that file.
        offset: u64,
        /// The checksum that the container states.
        expected: u64,
        /// The checksum of the bytes that were read.
        got: u64,
    },
    /// Filling the slots ahead of time failed.
    #[error("{source}")]
    Preload {
        /// The first expert that could not be read, and why.
        r#source: Arc<ExpertsError>,
    },
    /// The trace of fetches cannot be written.
    #[error("trace {source}; no trace is written from here on")]
    Trace {
        /// The operating system's error.
        r#source: TraceError,
    },
    /// The policy names no slot to evict although one is not in use.
    #[error("layer {layer}: the cache policy names no slot to evict; this is a bug of the policy")]
    NoVictim {
        /// The layer.
        layer: u32,
    },
    /// An extent in a file that was not given.
    #[error("layer {layer}, expert {expert} lies in file number {file}; the model has {files} files")]
    NoSuchFile {
        /// The layer.
        layer: usize,
        /// The expert.
        expert: usize,
        /// Index of the file.
        file: u32,
        /// How many there are.
        files: usize,
    },
    /// An extent that goes beyond its file's end.
    #[error(
        "{}: layer {layer}, expert {expert} needs {expected} bytes at offset {offset}, the file has \
         {got} there; it was cut off or is incomplete, copy or download it again",
        path.display()
    )]
    BeyondFile {
        /// The file.
        path: PathBuf,
        /// The layer.
        layer: usize,
        /// The expert.
        expert: usize,
        /// Start of the extent.
        offset: u64,
        /// Length of the extent.
        expected: u64,
        /// Bytes that the file has from `offset` on.
        got: u64,
    },
    /// A matrix that does not fit into its extent.
    #[error(
        "layer {layer}, expert {expert}: its {part} matrix needs {expected} bytes at offset {offset} \
         of extent {extent}, which has {got} there; the model's description does not fit its files"
    )]
    PartOutside {
        /// The layer.
        layer: usize,
        /// The expert.
        expert: usize,
        /// `gate`, `up` or `down`.
        part: &'static str,
        /// Index of the extent.
        extent: usize,
        /// Start of the matrix in the extent.
        offset: u64,
        /// Length of the matrix in bytes.
        expected: u64,
        /// Bytes that the extent has from `offset` on, 0 if there is no such extent.
        got: u64,
    },
    /// A matrix whose format and shape do not go together.
    #[error("layer {layer}: the experts' {part} matrix: {source}")]
    BadPart {
        /// The layer.
        layer: usize,
        /// `gate`, `up` or `down`.
        part: &'static str,
        /// The reason.
        r#source: TensorError,
    },
    /// A matrix whose size in bytes cannot be addressed.
    #[error("layer {layer}: the experts' {part} matrix of {rows} rows is too large to address")]
    PartTooLarge {
        /// The layer.
        layer: usize,
        /// `gate`, `up` or `down`.
        part: &'static str,
        /// Rows of the matrix.
        rows: usize,
    },
    /// A layer whose number of checksums is not that of its experts.
    #[error("layer {layer} has {got} checksums for {expected} experts; pack the model again")]
    ChecksumCount {
        /// The layer.
        layer: usize,
        /// Experts of the layer.
        expected: usize,
        /// Checksums of the layer.
        got: usize,
    },
    /// More experts than can be numbered.
    #[error("the model has more experts than can be numbered")]
    TooManyExperts,
}
