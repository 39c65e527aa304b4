//! Bytes from disk: aligned buffers, direct reads in parallel, a fault-injecting twin.
//!
//! This is the only crate that reads weights. Everything above it hands over a [`ReadRequest`] (a
//! buffer and the pieces of files that belong in it) and gets the buffer back in a [`Completion`]
//! once every piece has landed or one of them has failed:
//!
//! ```text
//! ReadRequest { buf, segments } ── submit ──► pieces ──► engine: threads or ring
//!                                                                            │ last piece
//! Completion { buf, result }   ◄── CompletionQueue ◄─────────────────────────┘
//! ```
//!
//! Invariants:
//! * A buffer moves. While a request is under way nobody else can touch its bytes; it comes back
//!   exactly once, whatever happens (error, fault, storage dropped), so a waiter never hangs and a
//!   slot never leaks.
//! * Aligned segments are read straight into the caller's buffer past the page cache. A file system
//!   that refuses direct reads is read through the page cache, and says so: [`Storage::mode`],
//!   [`Storage::fallback_reason`].
//! * A read delivers all the wanted bytes or an error that names path, offset, expected and got.
//!
//! One file per mechanism of the operating system lies in `os/`; [`FaultyStorage`] is the twin that
//! makes any of it fail or dawdle on a seeded schedule, and exists so that the layers above are
//! tested on it; [`GeneratedStorage`] computes its bytes.
#![deny(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::path::{Path, PathBuf};

mod buffer;
mod error;
mod faulty;
mod file;
mod generated;
mod job;
mod memory;
mod names;
mod open_file;
mod os;
mod pool;
mod queue;
mod random;
mod reading;
mod space;
#[cfg(target_os = "linux")]
mod uring;
mod widen;

pub use buffer::AlignedBuf;
pub use error::StorageError;
pub use faulty::{FaultKind, FaultPlan, FaultyStorage};
pub use file::{FileStorage, PIECE_BYTES, StorageOptions, THREADS_MAX};
pub use generated::GeneratedStorage;
pub use memory::{FixedMemory, MemoryProbe, MemoryUnknown, SystemMemory};
pub use names::UnknownName;
pub use queue::CompletionQueue;
pub use random::SplitMix64;
pub use space::free_disk_bytes;
pub use widen::{Widened, widen, widen_into};

/// Alignment, in bytes, of offset, length and memory of a direct read. Every layout uses it, also
/// when a file is read through the page cache, so that layouts do not depend on the mode.
pub const BLOCK_BYTES: usize = 4096;

/// How a file is read.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum IoMode {
    /// Past the page cache (O_DIRECT, F_NOCACHE, FILE_FLAG_NO_BUFFERING).
    Direct,
    /// Through the page cache.
    Buffered,
}

/// What does the reading.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum IoEngine {
    /// Whichever was measured to be better: the pool.
    #[default]
    Auto,
    /// A pool of threads that block in reads.
    Pread,
    /// One ring of Linux' io_uring, driven by those who submit and wait. Where it cannot be had the
    /// pool reads, and [`Storage::engine_fallback`] says so.
    Uring,
}

/// An open file of one [`Storage`]: an index into its file table.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// One contiguous piece of a file that goes into the buffer at `buf_offset`.
///
/// When `offset`, `bytes` and `buf_offset` are all multiples of [`Storage::block_bytes`] it is read
/// directly, and may end beyond the file's end by less than a block (what lies there in the buffer
/// is then unspecified). Otherwise exactly these bytes are wanted, and they pass through a bounce
/// buffer: correct, but slower. [`widen`] makes the former out of arbitrary ranges.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Segment {
    /// The file.
    pub file: FileId,
    /// Where in the file.
    pub offset: u64,
    /// How many bytes.
    pub bytes: usize,
    /// Where in the request's buffer.
    pub buf_offset: usize,
}

/// A read: the buffer moves in and comes back in the [`Completion`]. The segments may not overlap
/// in the buffer; bytes of the buffer that no segment covers stay as they are.
#[derive(Debug)]
pub struct ReadRequest {
    /// Handed back with the completion; means nothing to storage.
    pub tag: u64,
    /// Where the bytes go.
    pub buf: AlignedBuf,
    /// What is read.
    pub segments: Vec<Segment>,
}

/// A finished read.
#[derive(Debug)]
pub struct Completion {
    /// The request's tag.
    pub tag: u64,
    /// The request's buffer; its contents are unspecified where `result` is an error.
    pub buf: AlignedBuf,
    /// The request's segments, so that the caller can use the vector again.
    pub segments: Vec<Segment>,
    /// Whether every wanted byte is in the buffer.
    pub result: Result<(), StorageError>,
    /// Bytes that the drive delivered for this request, widened tails included.
    pub bytes_read: u64,
    /// From submission to completion.
    pub wait_us: u64,
}

/// The façade: real files, or the fault-injecting twin.
pub trait Storage: Send + Sync {
    /// Opens a file for reading. Its length is taken now; a file that is cut off later gives short
    /// reads.
    ///
    /// # Errors
    /// [`StorageError::Open`] if it cannot be opened, [`StorageError::NotAFile`] for anything but a
    /// file.
    fn open(&self, path: &Path) -> Result<FileId, StorageError>;

    /// The path that `file` was opened by (empty for an id of another storage).
    fn path(&self, file: FileId) -> PathBuf;

    /// Length of `file` in bytes when it was opened.
    ///
    /// # Errors
    /// [`StorageError::UnknownFile`].
    fn len_bytes(&self, file: FileId) -> Result<u64, StorageError>;

    /// How `file` is really read, which may differ from what was asked for.
    fn mode(&self, file: FileId) -> IoMode;

    /// Why a file that should be read directly is not (the first one that refused), in words.
    fn fallback_reason(&self) -> Option<String>;

    /// What really does the reading: [`IoEngine::Pread`] or [`IoEngine::Uring`].
    fn engine(&self) -> IoEngine {
        IoEngine::Pread
    }

    /// Why a ring that should read does not, in words.
    fn engine_fallback(&self) -> Option<String> {
        None
    }

    /// Alignment of direct reads: [`BLOCK_BYTES`], in every mode.
    fn block_bytes(&self) -> usize {
        BLOCK_BYTES
    }

    /// Starts a read; its completion goes to `queue`. Does not wait for the drive. Anything wrong
    /// with the request is reported in the completion.
    fn submit(&self, request: ReadRequest, queue: &CompletionQueue);

    /// As [`Storage::submit`], for a read that nobody waits for yet: it begins when nothing else
    /// waits to be read and only few reads are under way, so that it delays none of the others by
    /// much. [`Storage::settle_ahead`] decides what becomes of it.
    fn submit_ahead(&self, request: ReadRequest, queue: &CompletionQueue) {
        self.submit(request, queue);
    }

    /// Of the reads that were submitted ahead to `queue` and are not under way, those whose tag is
    /// in `wanted` are as any other from now on. The others are given up: what of them is under way
    /// is read to its end, and their completions say [`StorageError::Withdrawn`].
    fn settle_ahead(&self, _queue: &CompletionQueue, _wanted: &[u64]) {}

    /// Bytes delivered since the start, widened tails included.
    fn bytes_read(&self) -> u64;

    /// Microseconds since the start during which at least one read was under way: `bytes_read` over
    /// this is the rate the drive gave while it was asked for anything.
    fn busy_us(&self) -> u64;

    /// Reads `bytes` bytes at `offset` and waits for them: the buffer and the position of the first
    /// wanted byte in it. Large ranges are read in parallel.
    ///
    /// # Errors
    /// [`StorageError::ShortRead`] if the file ends before the range does; what the read itself
    /// met.
    fn read_range(
        &self,
        file: FileId,
        offset: u64,
        bytes: usize,
    ) -> Result<(AlignedBuf, usize), StorageError> {
        let wanted = u64::try_from(bytes).map_err(|_| StorageError::TooLarge { offset, bytes })?;
        let available = self.len_bytes(file)?.saturating_sub(offset);
        if available < wanted {
            return Err(StorageError::ShortRead {
                path: self.path(file),
                offset,
                expected: bytes,
                // Less than `bytes`, which is a usize.
                got: usize::try_from(available).unwrap_or(bytes),
            });
        }
        let layout = widen(&[(file, offset, wanted)], self.block_bytes())?;
        let buf = AlignedBuf::new(layout.buf_bytes)?;
        let queue = CompletionQueue::new();
        self.submit(ReadRequest { tag: 0, buf, segments: layout.segments }, &queue);
        let completion = queue.wait();
        completion.result?;
        Ok((completion.buf, layout.starts.first().copied().unwrap_or(0)))
    }
}
