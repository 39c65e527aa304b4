//! How one piece is read: which reads it takes, and what their results mean.
//!
//! A [`Reading`] is a small machine that says which read comes next and is told its result. The
//! pool turns it with blocking reads, the ring with submitted ones; so both mean the same by a
//! short, refused or interrupted read.

use std::fs::File;
use std::io;
use std::ops::Range;

use crate::job::Task;
use crate::open_file::{OpenFile, is_aligned};
use crate::{AlignedBuf, BLOCK_BYTES, StorageError, os};

/// The state of a piece that is being read into its area: the piece itself, or the blocks around it in a
/// bounce buffer.
pub(crate) struct Reading {
    /// Where the area starts in the file.
    start: u64,
    area_bytes: usize,
    /// Bytes of the area, from its start, that have to come.
    wanted: usize,
    /// Bytes of it that are there.
    got: usize,
    direct: bool,
    /// The file ended.
    ended: bool,
    /// Bytes of a bounced area that lie before the piece; None if the area is the piece.
    lead: Option<usize>,
    /// Why the file's direct handle did not take this read.
    refusal: Option<io::Error>,
}

/// A read to be done: these bytes of the area, from here in the file.
pub(crate) struct Access {
    pub(crate) direct: bool,
    pub(crate) offset: u64,
    pub(crate) range: Range<usize>,
}

impl Reading {
    /// How to read a piece of these properties. An area that is not the piece is to be bounced.
    pub(crate) fn new(task: &Task) -> Self {
        let (offset, bytes) = (task.offset, task.piece.len());
        let direct = task.file.direct_handle().is_some();
        if !direct || is_aligned(offset, bytes, task.piece.as_ptr().addr()) {
            return Self::over(offset, bytes, task.expected, direct, None);
        }
        let lead = (offset % BLOCK_BYTES as u64) as usize; // Less than a block.
        let wanted = lead + task.expected;
        let area_bytes = wanted.next_multiple_of(BLOCK_BYTES);
        Self::over(offset - lead as u64, area_bytes, wanted, direct, Some(lead))
    }

    fn over(start: u64, area_bytes: usize, wanted: usize, direct: bool, lead: Option<usize>) -> Self {
        debug_assert!(wanted <= area_bytes);
        Reading { start, area_bytes, wanted, got: 0, direct, ended: false, lead, refusal: None }
    }

    /// Length of the bounce buffer that is needed, if any.
    pub(crate) fn bounce_bytes(&self) -> Option<usize> {
        self.lead.map(|_| self.area_bytes)
    }

    /// The next read, or None when there is nothing left to do.
    pub(crate) fn next(&self) -> Option<Access> {
        if self.ended || self.got >= self.wanted {
            return None;
        }
        // A direct read takes whole blocks; what comes after the wanted bytes is the block's rest.
        let end = if self.direct { self.area_bytes } else { self.wanted };
        Some(Access { direct: self.direct, offset: self.start + self.got as u64, range: self.got..end })
    }

    /// Takes the result of the read that `next` named.
    ///
    /// # Errors
    /// The result's own, where it ends the reading.
    pub(crate) fn took(&mut self, result: io::Result<usize>) -> io::Result<()> {
        match result {
            Ok(0) => self.ended = true,
            Ok(bytes) => {
                self.got += bytes;
                // A count that is no multiple of a block ends direct reading: either the file ends here, or
                // what is left starts at an offset that only buffered reads can take.
                self.direct &= self.got.is_multiple_of(BLOCK_BYTES);
            }
            Err(error) if is_transient(&error) => {}
            Err(refusal) if self.direct && os::refuses_direct(&refusal) => {
                self.direct = false;
                self.refusal = Some(refusal);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Ends the reading: copies out of the bounce buffer, and says how many bytes the drive delivered.
    pub(crate) fn finish(
        self,
        result: io::Result<()>,
        task: &mut Task,
        bounce: &[u8],
    ) -> Result<u64, StorageError> {
        let (offset, expected) = (task.offset, task.expected);
        result.map_err(|source| task.file.read_error(offset, expected, source))?;
        if let Some(refusal) = &self.refusal {
            // Only now is it known that it was the direct reading that was wrong.
            task.file.refuse(refusal);
        }
        let got = match self.lead {
            None => self.got,
            Some(lead) => {
                let got = self.got.saturating_sub(lead).min(expected);
                task.piece[..got].copy_from_slice(&bounce[lead..lead + got]);
                got
            }
        };
        if got < expected {
            return Err(task.file.short(offset, expected, got));
        }
        Ok(self.got as u64)
    }
}

/// Whether a read that failed so is simply to be done again.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

/// Reads a task on this thread. Fills at least the expected bytes of the piece; what lies behind
/// them was never in the file when it was opened. Returns how many bytes the drive delivered.
pub(crate) fn read_blocking(task: &mut Task, bounce: &mut Bounce) -> Result<u64, StorageError> {
    let mut reading = Reading::new(task);
    let result = match reading.bounce_bytes() {
        None => drive(&mut reading, &task.file, &mut task.piece),
        Some(bytes) => bounce.take(bytes).and_then(|area| drive(&mut reading, &task.file, area)),
    };
    reading.finish(result, task, &bounce.buf)
}

fn drive(reading: &mut Reading, file: &OpenFile, area: &mut [u8]) -> io::Result<()> {
    while let Some(Access { direct, offset, range }) = reading.next() {
        let handle: &File = file.handle(direct);
        reading.took(os::read_at(handle, &mut area[range], offset))?;
    }
    Ok(())
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
            self.buf = bounce_buf(bytes.max(self.bytes))?;
        }
        Ok(&mut self.buf[..bytes])
    }
}

pub(crate) fn bounce_buf(bytes: usize) -> io::Result<AlignedBuf> {
    AlignedBuf::new(bytes).map_err(|error| io::Error::new(io::ErrorKind::OutOfMemory, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IoMode;
    use std::fs;

    #[test]
    fn a_read_that_is_refused_is_done_through_the_page_cache_and_remembered() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("file");
        let contents: Vec<u8> = (0..10_000u32).map(|at| (at % 251) as u8).collect();
        fs::write(&path, &contents).unwrap();
        let file = OpenFile::open(&path, IoMode::Direct, 0).unwrap();
        if file.direct_handle().is_none() {
            return;
        }
        // An offset that no direct read can take: what a file system with larger blocks would say.
        let mut target = AlignedBuf::new(8192).unwrap();
        let mut reading = Reading::over(1, 8192, 8192, true, None);
        drive(&mut reading, &file, &mut target).unwrap();
        assert!(reading.got == 8192 && target[..] == contents[1..8193]);
        let Some(refusal) = reading.refusal else {
            return; // A file system that takes any offset, such as tmpfs.
        };
        file.refuse(&refusal);
        assert_eq!(file.mode(), IoMode::Buffered);
    }

    /// (result of each read, what the next one is): the whole machine in a table.
    #[test]
    fn short_refused_and_interrupted_reads_go_on_where_they_have_to() {
        let shown = |reading: &Reading| reading.next().map(|a| (a.direct, a.offset, a.range));
        let error = |errno: i32| Err(io::Error::from_raw_os_error(errno));
        let mut reading = Reading::over(8192, 16_384, 10_000, true, None);
        assert_eq!(shown(&reading), Some((true, 8192, 0..16_384)));
        reading.took(error(4)).unwrap(); // EINTR
        reading.took(error(11)).unwrap(); // EAGAIN
        assert_eq!(shown(&reading), Some((true, 8192, 0..16_384)));
        reading.took(Ok(4096)).unwrap();
        assert_eq!(shown(&reading), Some((true, 12_288, 4096..16_384)));
        reading.took(Ok(100)).unwrap();
        assert_eq!(shown(&reading), Some((false, 12_388, 4196..10_000)));
        reading.took(Ok(5000)).unwrap();
        assert_eq!(shown(&reading), Some((false, 17_388, 9196..10_000)));
        reading.took(Ok(0)).unwrap();
        assert_eq!((shown(&reading), reading.got), (None, 9196));

        let mut reading = Reading::over(0, 4096, 4096, true, None);
        reading.took(error(22)).unwrap(); // EINVAL of a direct read
        assert_eq!(shown(&reading), Some((false, 0, 0..4096)));
        assert!(reading.took(error(22)).is_err() && reading.refusal.is_some());
        let mut reading = Reading::over(0, 4096, 4096, true, None);
        assert!(reading.took(error(5)).is_err()); // EIO
    }
}
