//! What can go wrong while a container is made or verified.

use std::path::{Path, PathBuf};

use checkpoint::CheckpointError;
use checkpoint::manifest::Checksum;
use tensor::TensorError;

use super::names::CREATED_BY;

/// Why packing or verifying stopped. Unless the message says otherwise nothing is lost: the same
/// command resumes an interrupted pack.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The container cannot be opened.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The source is not a model that is known.
    #[error(transparent)]
    Model(#[from] models::ModelError),
    /// The operating system refused an operation.
    #[error("{path}: cannot {action}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The system starts no more threads.
    #[error("cannot start a thread: {source}")]
    Thread {
        /// The system's answer.
        source: std::io::Error,
    },
    /// A read of the source failed or ended early.
    #[error("{path}: {item} at offset {offset}: cannot read {expected} bytes: {source}")]
    Read {
        /// The source file.
        path: PathBuf,
        /// The tensor, or layer, expert and matrix.
        item: String,
        /// First byte of the read.
        offset: u64,
        /// Length of the read.
        expected: u64,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A plan that names bytes which are not there, or a layout that no file can have.
    #[error("cannot pack {item}: expected {expected}, got {got}")]
    Plan {
        /// The tensor, layer or file.
        item: String,
        /// What the plan must say.
        expected: String,
        /// What it says.
        got: String,
    },
    /// A weight that the target format cannot hold.
    #[error(
        "{path}: {item} near offset {offset}: weight {got} does not fit {format}, expected a \
         finite value of at most {limit}; the file is damaged, or pack with f32 or bf16"
    )]
    Weight {
        /// The source file.
        path: PathBuf,
        /// The tensor, or layer, expert and matrix.
        item: String,
        /// First byte of the row or run of weights in the source file.
        offset: u64,
        /// Name of the target format.
        format: &'static str,
        /// Largest magnitude that is packed.
        limit: f32,
        /// The weight.
        got: f32,
    },
    /// A codec refused a row.
    #[error("cannot encode {item}: {source}")]
    Codec {
        /// The tensor, or layer, expert and matrix.
        item: String,
        /// The codec's answer.
        source: TensorError,
    },
    /// The target has files in it that are no unfinished container.
    #[error(
        "{path}: expected an empty or new directory, got one with {found} in it; nothing was \
         written, choose another target or delete it"
    )]
    TargetNotEmpty {
        /// The target directory.
        path: PathBuf,
        /// One of the files in it.
        found: String,
    },
    /// The target is a file.
    #[error("{path}: expected a directory to pack into, got a file; choose another target")]
    TargetIsFile {
        /// The target.
        path: PathBuf,
    },
    /// The target is a finished or unfinished container of something else.
    #[error(
        "{path}: holds {what} of another model, other options or another version: expected plan \
         {expected} by {expected_by}, got {found} by {found_by}; nothing was written, choose \
         another target, delete it, or use the command that began it",
        expected_by = CREATED_BY
    )]
    OtherPlan {
        /// The target directory.
        path: PathBuf,
        /// "a container" or "an unfinished container".
        what: &'static str,
        /// Plan of this call.
        expected: Checksum,
        /// Plan of the container.
        found: Checksum,
        /// Program that made it.
        found_by: String,
    },
    /// Another process is packing into the same directory.
    #[error("{path}: another process is packing into this directory; wait for it or stop it")]
    Busy {
        /// The target directory.
        path: PathBuf,
    },
    /// The disk has too little space for the result; nothing was written.
    #[error(
        "{path}: the disk is too small for the result: expected {needed} free bytes, got {free}; \
         free {missing} more bytes or choose another disk, nothing was written"
    )]
    NoSpace {
        /// The target directory.
        path: PathBuf,
        /// Bytes still to be written.
        needed: u64,
        /// Bytes free.
        free: u64,
        /// The difference.
        missing: u64,
    },
    /// The disk filled up while packing.
    #[error(
        "{path}: the disk became full at offset {offset}: about {missing} bytes are missing; free \
         that much and run the same command again to resume"
    )]
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
        /// Where the write was.
        offset: u64,
        /// Bytes still to be written less the bytes free.
        missing: u64,
    },
    /// Re-reading the container found damaged bytes. The damaged records are forgotten, so running
    /// the command again writes them anew.
    #[error(
        "{path}: {count} damaged after writing, first {first}; check the disk and run the same \
         command again, which writes them anew"
    )]
    VerifyFailed {
        /// The target directory.
        path: PathBuf,
        /// Number of damaged tensors and records.
        count: usize,
        /// The first of them, in words.
        first: String,
    },
    /// A test asked to stop here.
    #[error("stopped by a test after {units} units")]
    Stopped {
        /// Units that were finished.
        units: u64,
    },
}

impl PackError {
    pub(crate) fn io(path: &Path, action: &'static str, source: std::io::Error) -> PackError {
        PackError::Io { path: path.to_path_buf(), action, source }
    }

    pub(crate) fn plan(item: impl Into<String>, expected: impl ToString, got: impl ToString) -> PackError {
        PackError::Plan { item: item.into(), expected: expected.to_string(), got: got.to_string() }
    }
}
