//! What can go wrong between a file and a buffer. Each message is one line that says what, where,
//! what was expected and what came, and what to do about it.

use std::io;
use std::path::PathBuf;

/// Error of the storage layer.
///
/// The operating system's error is printed as part of the message and is not a `source()` as well,
/// so that a printed chain does not say it twice; hence the raw identifiers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The file could not be opened or examined.
    #[error("{}: cannot open: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        r#source: io::Error,
    },
    /// The path leads to a directory, a pipe or the like.
    #[error("{}: not a regular file; name a file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The operating system failed a read.
    #[error(
        "{}: reading {expected} bytes at offset {offset} failed: {source}; check the drive and \
         that the file is still there",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// First byte of the failed read in the file.
        offset: u64,
        /// Bytes asked for.
        expected: usize,
        /// What the operating system said.
        r#source: io::Error,
    },
    /// The file ended before the read did.
    #[error(
        "{}: short read at offset {offset}: expected {expected} bytes, got {got}; the file was cut \
         off or is incomplete, copy or download it again",
        path.display()
    )]
    ShortRead {
        /// The file.
        path: PathBuf,
        /// First byte of the read in the file.
        offset: u64,
        /// Bytes asked for.
        expected: usize,
        /// Bytes that came.
        got: usize,
    },
    /// No memory for a buffer.
    #[error("cannot allocate {bytes} bytes: {source}; lower the memory budget")]
    Allocate {
        /// Bytes asked for.
        bytes: usize,
        /// What the operating system said.
        r#source: io::Error,
    },
    /// A range whose end does not fit into the address space or the file offsets.
    #[error("a range of {bytes} bytes at offset {offset} is too large to address")]
    TooLarge {
        /// First byte of the range.
        offset: u64,
        /// Its length.
        bytes: usize,
    },
    /// A segment that does not fit into its buffer, or overlaps another one there.
    #[error(
        "a segment of {bytes} bytes at buffer offset {buf_offset} overlaps another one or exceeds \
         the buffer of {buf_bytes} bytes"
    )]
    BadSegment {
        /// Where the segment starts in the buffer.
        buf_offset: usize,
        /// The segment's length.
        bytes: usize,
        /// The buffer's length.
        buf_bytes: usize,
    },
    /// A block size that is no power of two.
    #[error("block size {block_bytes} is not a power of two")]
    BadBlock {
        /// The block size.
        block_bytes: usize,
    },
    /// An id that this storage did not give out.
    #[error("no open file has the id {id}")]
    UnknownFile {
        /// The id.
        id: u32,
    },
    /// Too many files for an id.
    #[error("{}: too many open files", path.display())]
    TooManyFiles {
        /// The file that was one too many.
        path: PathBuf,
    },
    /// A number of reader threads outside the limits.
    #[error("{got} reader threads: give 1 to {max}")]
    Threads {
        /// What was asked for.
        got: usize,
        /// [`crate::THREADS_MAX`].
        max: usize,
    },
    /// The operating system refused a thread.
    #[error("cannot start a reader thread: {source}")]
    Spawn {
        /// What the operating system said.
        r#source: io::Error,
    },
    /// A read ahead that turned out not to be wanted. See [`crate::Storage::settle_ahead`].
    #[error("the read was given up because nobody wanted it")]
    Withdrawn,
    /// The storage was closed before the read was done.
    #[error("the read was abandoned because its storage was closed")]
    Closed,
}
