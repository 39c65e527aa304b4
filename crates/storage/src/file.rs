//! Real files: opened for direct reads where the file system allows it, read by a pool of threads or a
//! ring.
//!
//! Every file has two handles, one for direct and one for buffered reads. Whether direct reads work
//! is tried out when the file is opened, since some file systems accept the flag and refuse the
//! read; one that is refused later still is read through the page cache from then on. Either way
//! the reason is kept.
//!
//! The page cache is not told to drop what was read through it: other engines measured that this
//! (`POSIX_FADV_DONTNEED` after each read) makes a machine with free memory four times slower, and
//! the kernel reclaims clean pages by itself.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use crate::job::{Job, Task, Urgency};
use crate::open_file::OpenFile;
use crate::pool::Pool;
#[cfg(target_os = "linux")]
use crate::uring::Uring;
use crate::{BLOCK_BYTES, CompletionQueue, FileId, IoEngine, IoMode, ReadRequest, Storage, StorageError};

/// Reads are split into pieces of at most this many bytes, so that one record alone keeps several
/// threads busy and a large tensor all of them.
pub const PIECE_BYTES: usize = 1 << 20;

/// More reader threads than this are refused: no drive has so deep a queue that it would help.
pub const THREADS_MAX: usize = 256;

/// How files are read.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct StorageOptions {
    /// What is tried. See [`Storage::mode`] for what is obtained.
    pub mode: IoMode,
    /// Threads of the pool, each with one read in flight: 1 to [`THREADS_MAX`]. A ring has four
    /// times as many reads in flight.
    pub threads: usize,
    /// What does the reading. See [`Storage::engine`] for what is obtained.
    pub engine: IoEngine,
}

impl Default for StorageOptions {
    fn default() -> Self {
        StorageOptions { mode: IoMode::Direct, threads: 16, engine: IoEngine::Auto }
    }
}

/// Files of the operating system.
pub struct FileStorage {
    mode: IoMode,
    piece_bytes: usize,
    files: RwLock<Vec<Arc<OpenFile>>>,
    reader: Reader,
    engine_fallback: Option<String>,
}

/// Reads in flight in a ring for each thread that a pool would have. A ring starts what is beyond
/// its depth only when somebody waits, so that it has to be deep; a read in it costs no thread.
#[cfg(target_os = "linux")]
const RING_DEPTH_PER_THREAD: usize = 4;

/// What reads.
enum Reader {
    Pool(Pool),
    #[cfg(target_os = "linux")]
    Uring(Uring),
}

impl FileStorage {
    /// Starts the reader threads.
    ///
    /// # Errors
    /// [`StorageError::Threads`] for a number of threads outside the limits,
    /// [`StorageError::Spawn`] if one cannot be started.
    pub fn new(options: StorageOptions) -> Result<Arc<Self>, StorageError> {
        Self::with_piece_bytes(options, PIECE_BYTES)
    }

    /// [`FileStorage::new`] with another size of pieces than [`PIECE_BYTES`], for measurements. It
    /// is rounded up to whole blocks.
    ///
    /// # Errors
    /// As [`FileStorage::new`].
    pub fn with_piece_bytes(options: StorageOptions, piece_bytes: usize) -> Result<Arc<Self>, StorageError> {
        let StorageOptions { mode, threads, engine } = options;
        if threads == 0 || threads > THREADS_MAX {
            return Err(StorageError::Threads { got: threads, max: THREADS_MAX });
        }
        let piece_bytes = piece_bytes
            .max(1)
            .checked_next_multiple_of(BLOCK_BYTES)
            .filter(|bytes| isize::try_from(*bytes).is_ok())
            .ok_or(StorageError::TooLarge { offset: 0, bytes: piece_bytes })?;
        let (ring, engine_fallback) = open_ring(threads, engine);
        let reader = match ring {
            Some(reader) => reader,
            None => Reader::Pool(Pool::new(threads, piece_bytes.saturating_add(2 * BLOCK_BYTES))?),
        };
        let files = RwLock::new(Vec::new());
        Ok(Arc::new(FileStorage { mode, piece_bytes, files, reader, engine_fallback }))
    }

    fn file(&self, id: FileId) -> Result<Arc<OpenFile>, StorageError> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        let index = usize::try_from(id.0).unwrap_or(usize::MAX);
        files.get(index).cloned().ok_or(StorageError::UnknownFile { id: id.0 })
    }

    fn submit_as(&self, urgency: Urgency, request: ReadRequest, queue: &CompletionQueue) {
        let job = Job::new(request, queue);
        let plan = |job: &Arc<Job>, tasks: &mut VecDeque<Task>| self.plan(job, tasks);
        match &self.reader {
            Reader::Pool(pool) => pool.submit(&job, urgency, plan),
            #[cfg(target_os = "linux")]
            Reader::Uring(ring) => ring.submit(&job, urgency, plan, queue),
        }
    }

    /// Splits the segments of a job into tasks.
    fn plan(&self, job: &Arc<Job>, tasks: &mut VecDeque<Task>) -> Result<(), StorageError> {
        for segment in job.segments() {
            let file = self.file(segment.file)?;
            let end = file.check_end(segment)?;
            let mut offset = segment.offset;
            let mut buf_offset = segment.buf_offset;
            while offset < end {
                let bytes = piece_bytes_at(offset, end, self.piece_bytes);
                let exist = file.len_bytes.saturating_sub(offset);
                let expected = usize::try_from(exist).map_or(bytes, |exist| exist.min(bytes));
                tasks.push_back(job.task(&file, offset, bytes, expected, buf_offset)?);
                offset += bytes as u64;
                buf_offset += bytes; // At most the segment's end, which `task` has checked.
            }
        }
        Ok(())
    }
}

/// The ring, if it is wanted and can be had; why not, if it was asked for.
#[cfg(target_os = "linux")]
fn open_ring(depth: usize, engine: IoEngine) -> (Option<Reader>, Option<String>) {
    // What `Auto` takes is measured: docs/experiments/2026-11-streaming-full-size.md.
    if engine != IoEngine::Uring {
        return (None, None);
    }
    match Uring::new(RING_DEPTH_PER_THREAD * depth) {
        Ok(ring) => (Some(Reader::Uring(ring)), None),
        Err(error) => {
            (None, Some(format!("io_uring is not available ({error}), reading by a pool of threads")))
        }
    }
}

/// There is no ring on this system.
#[cfg(not(target_os = "linux"))]
fn open_ring(_depth: usize, engine: IoEngine) -> (Option<Reader>, Option<String>) {
    let reason = "io_uring is for Linux, reading by a pool of threads";
    (None, (engine == IoEngine::Uring).then(|| reason.into()))
}

/// Length of the piece at `offset` of a range that ends at `end`. Every piece but the last ends on
/// a block bound of the file, so that an unaligned range has only two pieces that need widening.
fn piece_bytes_at(offset: u64, end: u64, piece_bytes: usize) -> usize {
    let block = BLOCK_BYTES as u64;
    let target = offset.saturating_add(piece_bytes as u64) & !(block - 1);
    // Not more than piece_bytes, a usize.
    usize::try_from(target.min(end) - offset).unwrap_or(piece_bytes)
}

impl Storage for FileStorage {
    fn open(&self, path: &Path) -> Result<FileId, StorageError> {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        let index = files.len();
        let id = u32::try_from(index).map_err(|_| StorageError::TooManyFiles { path: path.to_path_buf() })?;
        files.push(Arc::new(OpenFile::open(path, self.mode, index)?));
        Ok(FileId(id))
    }

    fn path(&self, file: FileId) -> PathBuf {
        self.file(file).map(|file| file.path.clone()).unwrap_or_default()
    }

    fn len_bytes(&self, file: FileId) -> Result<u64, StorageError> {
        Ok(self.file(file)?.len_bytes)
    }

    fn mode(&self, file: FileId) -> IoMode {
        self.file(file).map_or(IoMode::Buffered, |file| file.mode())
    }

    fn fallback_reason(&self) -> Option<String> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        files.iter().find_map(|file| file.refusal.get().cloned())
    }

    fn engine(&self) -> IoEngine {
        match &self.reader {
            Reader::Pool(_) => IoEngine::Pread,
            #[cfg(target_os = "linux")]
            Reader::Uring(_) => IoEngine::Uring,
        }
    }

    fn engine_fallback(&self) -> Option<String> {
        self.engine_fallback.clone()
    }

    fn submit(&self, request: ReadRequest, queue: &CompletionQueue) {
        self.submit_as(Urgency::Wanted, request, queue);
    }

    fn submit_ahead(&self, request: ReadRequest, queue: &CompletionQueue) {
        self.submit_as(Urgency::Ahead, request, queue);
    }

    fn settle_ahead(&self, queue: &CompletionQueue, wanted: &[u64]) {
        match &self.reader {
            Reader::Pool(pool) => pool.settle_ahead(queue, wanted),
            #[cfg(target_os = "linux")]
            Reader::Uring(ring) => ring.settle_ahead(queue, wanted),
        }
    }

    fn bytes_read(&self) -> u64 {
        match &self.reader {
            Reader::Pool(pool) => pool.bytes_read(),
            #[cfg(target_os = "linux")]
            Reader::Uring(ring) => ring.bytes_read(),
        }
    }

    fn busy_us(&self) -> u64 {
        let busy = match &self.reader {
            Reader::Pool(pool) => pool.busy(),
            #[cfg(target_os = "linux")]
            Reader::Uring(ring) => ring.busy(),
        };
        u64::try_from(busy.as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_on_block_bounds() {
        let mut offset = 5;
        let mut pieces = Vec::new();
        while offset < 20_000 {
            let bytes = piece_bytes_at(offset, 20_000, 8192);
            pieces.push(bytes);
            offset += bytes as u64;
        }
        assert_eq!(pieces, [8187, 8192, 3616]);
    }
}
