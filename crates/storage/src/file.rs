//! Real files: opened for direct reads where the file system allows it, read by a pool of threads.
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
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use crate::pool::{Job, Pool, Task};
use crate::{
    AlignedBuf, BLOCK_BYTES, CompletionQueue, FileId, IoMode, ReadRequest, Segment, Storage, StorageError, os,
};

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
    /// Reader threads, which is the number of reads in flight: 1 to [`THREADS_MAX`].
    pub threads: usize,
}

impl Default for StorageOptions {
    fn default() -> Self {
        StorageOptions { mode: IoMode::Direct, threads: 16 }
    }
}

/// Files of the operating system.
pub struct FileStorage {
    mode: IoMode,
    piece_bytes: usize,
    files: RwLock<Vec<Arc<OpenFile>>>,
    pool: Pool,
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
        let StorageOptions { mode, threads } = options;
        if threads == 0 || threads > THREADS_MAX {
            return Err(StorageError::Threads { got: threads, max: THREADS_MAX });
        }
        let piece_bytes = piece_bytes
            .max(1)
            .checked_next_multiple_of(BLOCK_BYTES)
            .filter(|bytes| isize::try_from(*bytes).is_ok())
            .ok_or(StorageError::TooLarge { offset: 0, bytes: piece_bytes })?;
        let pool = Pool::new(threads, piece_bytes.saturating_add(2 * BLOCK_BYTES))?;
        let files = RwLock::new(Vec::new());
        Ok(Arc::new(FileStorage { mode, piece_bytes, files, pool }))
    }

    fn file(&self, id: FileId) -> Result<Arc<OpenFile>, StorageError> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        let index = usize::try_from(id.0).unwrap_or(usize::MAX);
        files.get(index).cloned().ok_or(StorageError::UnknownFile { id: id.0 })
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
        let file = Arc::new(OpenFile::open(path, self.mode)?);
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        let id = u32::try_from(files.len())
            .map_err(|_| StorageError::TooManyFiles { path: path.to_path_buf() })?;
        files.push(file);
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

    fn submit(&self, request: ReadRequest, queue: &CompletionQueue) {
        self.pool.submit(Job::new(request, queue), |job, tasks| self.plan(job, tasks));
    }

    fn bytes_read(&self) -> u64 {
        self.pool.bytes_read()
    }

    fn busy_us(&self) -> u64 {
        u64::try_from(self.pool.busy().as_micros()).unwrap_or(u64::MAX)
    }
}

/// A file of the table.
pub(crate) struct OpenFile {
    path: PathBuf,
    len_bytes: u64,
    buffered: File,
    direct: Option<File>,
    /// Why this file is not read directly although it should be.
    refusal: OnceLock<String>,
}

impl OpenFile {
    fn open(path: &Path, mode: IoMode) -> Result<Self, StorageError> {
        let failed = |source| StorageError::Open { path: path.to_path_buf(), source };
        // Before opening: to open a pipe is to wait for its writer.
        if !fs::metadata(path).map_err(failed)?.is_file() {
            return Err(StorageError::NotAFile { path: path.to_path_buf() });
        }
        let buffered = os::open_buffered(path).map_err(failed)?;
        let len_bytes = buffered.metadata().map_err(failed)?.len();
        let path = path.to_path_buf();
        let mut file = OpenFile { path, len_bytes, buffered, direct: None, refusal: OnceLock::new() };
        if mode == IoMode::Direct {
            match os::open_direct(&file.path) {
                Ok(direct) => file.direct = Some(direct),
                Err(error) => file.refuse(&error),
            }
            file.try_direct()?;
        }
        Ok(file)
    }

    /// Reads the first block to learn whether direct reads work.
    fn try_direct(&mut self) -> Result<(), StorageError> {
        let Some(direct) = &self.direct else {
            return Ok(());
        };
        let mut block = AlignedBuf::new(BLOCK_BYTES)?;
        match os::read_at(direct, &mut block, 0) {
            Err(error) if os::refuses_direct(&error) => self.refuse(&error),
            // A drive's error belongs to the read that wants those bytes.
            _ => {}
        }
        Ok(())
    }

    fn refuse(&self, error: &io::Error) {
        let path = self.path.display();
        let reason = format!("{path}: direct reads refused ({error}), reading through the page cache");
        // Several threads may be refused at once; one reason is enough.
        let _ = self.refusal.set(reason);
    }

    fn mode(&self) -> IoMode {
        match self.direct_handle() {
            Some(_) => IoMode::Direct,
            None => IoMode::Buffered,
        }
    }

    fn direct_handle(&self) -> Option<&File> {
        self.direct.as_ref().filter(|_| self.refusal.get().is_none())
    }

    /// Where a segment ends in the file. An aligned one may end in the block that the file's end
    /// lies in.
    fn check_end(&self, segment: &Segment) -> Result<u64, StorageError> {
        let &Segment { offset, bytes, buf_offset, .. } = segment;
        let too_large = StorageError::TooLarge { offset, bytes };
        let end = u64::try_from(bytes).ok().and_then(|bytes| offset.checked_add(bytes));
        let end = end.ok_or(too_large)?;
        let limit = if is_aligned(offset, bytes, buf_offset) {
            self.len_bytes.checked_next_multiple_of(BLOCK_BYTES as u64).unwrap_or(u64::MAX)
        } else {
            self.len_bytes
        };
        if end > limit {
            let got = self.len_bytes.saturating_sub(offset);
            return Err(self.short(offset, bytes, usize::try_from(got).unwrap_or(bytes)));
        }
        Ok(end)
    }

    fn short(&self, offset: u64, expected: usize, got: usize) -> StorageError {
        StorageError::ShortRead { path: self.path.clone(), offset, expected, got }
    }

    /// Fills at least the first `expected` bytes of `target` from `offset`. Returns how many bytes
    /// the drive delivered. What lies behind `expected` was never in the file when it was opened.
    pub(crate) fn read(
        &self,
        offset: u64,
        target: &mut [u8],
        expected: usize,
        bounce: &mut Bounce,
    ) -> Result<u64, StorageError> {
        debug_assert!(expected <= target.len());
        let filled = match self.direct_handle() {
            None => self.fill_buffered(offset, target, expected, 0).map(Filled::plain),
            Some(direct) if is_aligned(offset, target.len(), target.as_ptr().addr()) => {
                self.fill_direct(direct, offset, target, expected).map(Filled::plain)
            }
            Some(direct) => self.fill_by_bounce(direct, offset, &mut target[..expected], bounce),
        };
        let Filled { delivered, got } = filled.map_err(|source| StorageError::Read {
            path: self.path.clone(),
            offset,
            expected,
            source,
        })?;
        if got < expected {
            return Err(self.short(offset, expected, got));
        }
        Ok(delivered as u64)
    }

    /// Reads whole blocks straight into `target`. Returns how many bytes came: `expected` or more,
    /// unless the file has become shorter.
    fn fill_direct(
        &self,
        direct: &File,
        offset: u64,
        target: &mut [u8],
        expected: usize,
    ) -> io::Result<usize> {
        let mut got = 0;
        // A count that is no multiple of a block ends direct reading: either the file ends here, or
        // what is left starts at an offset that only buffered reads can take.
        while got < expected && got.is_multiple_of(BLOCK_BYTES) {
            match os::read_at(direct, &mut target[got..], offset + got as u64) {
                Ok(0) => return Ok(got),
                Ok(bytes) => got += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(refusal) if os::refuses_direct(&refusal) => {
                    let got = self.fill_buffered(offset, target, expected, got)?;
                    // Only now is it known that it was the direct reading that was wrong.
                    self.refuse(&refusal);
                    return Ok(got);
                }
                Err(error) => return Err(error),
            }
        }
        self.fill_buffered(offset, target, expected, got)
    }

    /// Continues after `got` bytes through the page cache, up to `expected`. Returns how many there
    /// are then.
    fn fill_buffered(
        &self,
        offset: u64,
        target: &mut [u8],
        expected: usize,
        mut got: usize,
    ) -> io::Result<usize> {
        while got < expected {
            match os::read_at(&self.buffered, &mut target[got..expected], offset + got as u64) {
                Ok(0) => break,
                Ok(bytes) => got += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(got)
    }

    /// Reads the blocks around an unaligned range into the bounce buffer and copies the range out
    /// of it.
    fn fill_by_bounce(
        &self,
        direct: &File,
        offset: u64,
        target: &mut [u8],
        bounce: &mut Bounce,
    ) -> io::Result<Filled> {
        let block = BLOCK_BYTES as u64;
        let lead = (offset % block) as usize; // Less than a block.
        let wanted = lead + target.len();
        let blocks = bounce.take(wanted.next_multiple_of(BLOCK_BYTES))?;
        let delivered = self.fill_direct(direct, offset - lead as u64, blocks, wanted)?;
        let got = delivered.saturating_sub(lead).min(target.len());
        target[..got].copy_from_slice(&blocks[lead..lead + got]);
        Ok(Filled { delivered, got })
    }
}

/// What a read came to.
struct Filled {
    /// Bytes from the drive.
    delivered: usize,
    /// Bytes of the target, from its start, that are there.
    got: usize,
}

impl Filled {
    fn plain(got: usize) -> Self {
        Filled { delivered: got, got }
    }
}

/// Aligned memory of one reader thread for ranges that are not. Allocated on first use: a packed
/// model has none such.
pub(crate) struct Bounce {
    bytes: usize,
    buf: AlignedBuf,
}

impl Bounce {
    pub(crate) fn new(bytes: usize) -> Self {
        Bounce { bytes, buf: AlignedBuf::empty() }
    }

    fn take(&mut self, bytes: usize) -> io::Result<&mut [u8]> {
        if self.buf.len() < bytes {
            self.buf = AlignedBuf::new(bytes.max(self.bytes))
                .map_err(|error| io::Error::new(io::ErrorKind::OutOfMemory, error))?;
        }
        Ok(&mut self.buf[..bytes])
    }
}

fn is_aligned(offset: u64, bytes: usize, address: usize) -> bool {
    offset.is_multiple_of(BLOCK_BYTES as u64)
        && bytes.is_multiple_of(BLOCK_BYTES)
        && address.is_multiple_of(BLOCK_BYTES)
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

    #[test]
    fn a_read_that_is_refused_is_done_through_the_page_cache_and_remembered() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("file");
        let contents: Vec<u8> = (0..10_000u32).map(|at| (at % 251) as u8).collect();
        fs::write(&path, &contents).unwrap();
        let file = OpenFile::open(&path, IoMode::Direct).unwrap();
        let Some(direct) = file.direct_handle() else { return };
        let mut target = AlignedBuf::new(8192).unwrap();
        // An offset that no direct read can take: what a file system with larger blocks would say.
        let got = file.fill_direct(direct, 1, &mut target, 8192).unwrap();
        assert!(got == 8192 && target[..] == contents[1..8193]);
        if file.mode() == IoMode::Direct {
            return; // A file system that takes any offset, such as tmpfs.
        }
        let reason = file.refusal.get().unwrap();
        assert!(reason.contains("direct reads refused"), "{reason}");
        let read = file.read(0, &mut target, 8192, &mut Bounce::new(0)).unwrap();
        assert!(read == 8192 && target[..] == contents[..8192]);
    }
}
