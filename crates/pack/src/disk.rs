//! What packing asks of the operating system, one function each; where a system has no such call
//! the function does nothing and packing is only less polite.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of disk that a file already occupies; holes do not count.
pub(crate) fn allocated_bytes(path: &Path) -> u64 {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        const STAT_BLOCK_BYTES: u64 = 512;
        std::fs::metadata(path).map_or(0, |m| m.blocks().saturating_mul(STAT_BLOCK_BYTES))
    }
    #[cfg(not(unix))]
    {
        std::fs::metadata(path).map_or(0, |m| m.len())
    }
}

/// Gives `file` its final length and, where the file system can, the disk blocks for it, so that
/// the disk cannot fill up underneath a pack that runs for hours.
pub(crate) fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    file.set_len(bytes)?;
    #[cfg(target_os = "linux")]
    if bytes > 0 {
        use rustix::fs::{FallocateFlags, fallocate};
        // Only a full disk counts; a file system without reservations is no fault.
        let reserved = fallocate(file, FallocateFlags::empty(), 0, bytes);
        if reserved == Err(rustix::io::Errno::NOSPC) {
            return Err(io::ErrorKind::StorageFull.into());
        }
    }
    Ok(())
}

/// Takes the lock that keeps a second process out of the directory. `Ok(None)`: it is taken.
pub(crate) fn lock(directory: &Path) -> io::Result<Option<DirectoryLock>> {
    #[cfg(unix)]
    {
        use rustix::fs::{FlockOperation, flock};
        let handle = File::open(directory)?;
        match flock(&handle, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(DirectoryLock(Some(handle)))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            // File systems without locks: work as if there were no other process.
            Err(_) => Ok(Some(DirectoryLock(None))),
        }
    }
    #[cfg(not(unix))]
    {
        let _ = directory;
        Ok(Some(DirectoryLock(None)))
    }
}

/// Holds the lock of a directory until it is dropped or the process dies.
pub(crate) struct DirectoryLock(Option<File>);

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Closing alone is not enough while a forked child still has a copy of the handle.
        #[cfg(unix)]
        if let Some(handle) = &self.0 {
            let _ = rustix::fs::flock(handle, rustix::fs::FlockOperation::Unlock);
        }
        self.0 = None;
    }
}

/// Makes renames, creations and removals in `directory` durable.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        File::open(directory)?.sync_all()
    }
    #[cfg(not(unix))]
    {
        let _ = directory;
        Ok(())
    }
}

/// Asks the system to read a range into its cache now.
pub(crate) fn will_need(file: &File, offset: u64, bytes: u64) {
    #[cfg(target_os = "linux")]
    advise(file, offset, bytes, rustix::fs::Advice::WillNeed);
    #[cfg(not(target_os = "linux"))]
    let _ = (file, offset, bytes);
}

/// Tells the system that a range will not be needed again; `bytes` 0 means to the end.
pub(crate) fn wont_need(file: &File, offset: u64, bytes: u64) {
    #[cfg(target_os = "linux")]
    advise(file, offset, bytes, rustix::fs::Advice::DontNeed);
    #[cfg(not(target_os = "linux"))]
    let _ = (file, offset, bytes);
}

#[cfg(target_os = "linux")]
fn advise(file: &File, offset: u64, bytes: u64, advice: rustix::fs::Advice) {
    // Advice only: where it is not taken, nothing is lost.
    let _ = rustix::fs::fadvise(file, offset, std::num::NonZeroU64::new(bytes), advice);
}

/// Reads exactly `buf.len()` bytes at `offset`.
pub(crate) fn read_exact_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    {
        std::os::unix::fs::FileExt::read_exact_at(file, buf, offset)
    }
    #[cfg(windows)]
    {
        let mut done = 0usize;
        while done < buf.len() {
            let at = offset + done as u64;
            match std::os::windows::fs::FileExt::seek_read(file, &mut buf[done..], at)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => done += n,
            }
        }
        Ok(())
    }
}

/// Writes all of `buf` at `offset`.
pub(crate) fn write_all_at(file: &File, buf: &[u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    {
        std::os::unix::fs::FileExt::write_all_at(file, buf, offset)
    }
    #[cfg(windows)]
    {
        let mut done = 0usize;
        while done < buf.len() {
            let at = offset + done as u64;
            match std::os::windows::fs::FileExt::seek_write(file, &buf[done..], at)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => done += n,
            }
        }
        Ok(())
    }
}

/// Opens an existing file for reads and writes past the page cache: aligned memory, offsets and lengths only.
///
/// # Errors
/// Where the file system or the operating system has no such writes, or refuses one.
pub(crate) fn open_direct(path: &Path) -> io::Result<File> {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).map_err(io::Error::other)?;
        OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Files opened on demand, at most [`OPEN_FILES_MAX`] at a time: a large model has more shards and
/// layers than some systems let a process hold open.
pub(crate) struct FilePool {
    paths: Vec<PathBuf>,
    write: bool,
    open: Mutex<HashMap<usize, Arc<File>>>,
}

impl FilePool {
    /// A pool over `paths`, for reading or for writing to files that exist.
    pub(crate) fn new(paths: Vec<PathBuf>, write: bool) -> FilePool {
        FilePool { paths, write, open: Mutex::default() }
    }

    /// The path of file `index`.
    pub(crate) fn path(&self, index: usize) -> &Path {
        &self.paths[index]
    }

    /// File `index`, opened if it is not.
    pub(crate) fn file(&self, index: usize) -> io::Result<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(&index) {
            return Ok(Arc::clone(file));
        }
        if open.len() >= OPEN_FILES_MAX {
            // Whoever uses one of these keeps it alive by its own handle.
            open.clear();
        }
        let mut options = OpenOptions::new();
        let file = Arc::new(options.read(true).write(self.write).open(&self.paths[index])?);
        open.insert(index, Arc::clone(&file));
        Ok(file)
    }
}

/// Files that one pool holds open.
const OPEN_FILES_MAX: usize = 64;
