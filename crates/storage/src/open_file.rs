//! One file of the table: its handles for direct and for buffered reads.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::{AlignedBuf, BLOCK_BYTES, IoMode, Segment, StorageError, os};

/// A file of the table.
pub(crate) struct OpenFile {
    /// Used by the ring only.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    index: usize,
    pub(crate) path: PathBuf,
    pub(crate) len_bytes: u64,
    buffered: File,
    direct: Option<File>,
    /// Why this file is not read directly although it should be.
    pub(crate) refusal: OnceLock<String>,
}

impl OpenFile {
    pub(crate) fn open(path: &Path, mode: IoMode, index: usize) -> Result<Self, StorageError> {
        let failed = |source| StorageError::Open { path: path.to_path_buf(), source };
        // Before opening: to open a pipe is to wait for its writer.
        if !fs::metadata(path).map_err(failed)?.is_file() {
            return Err(StorageError::NotAFile { path: path.to_path_buf() });
        }
        let buffered = os::open_buffered(path).map_err(failed)?;
        let len_bytes = buffered.metadata().map_err(failed)?.len();
        let path = path.to_path_buf();
        let refusal = OnceLock::new();
        let mut file = OpenFile { index, path, len_bytes, buffered, direct: None, refusal };
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

    pub(crate) fn refuse(&self, error: &io::Error) {
        let path = self.path.display();
        let reason = format!("{path}: direct reads refused ({error}), reading through the page cache");
        // Several threads may be refused at once; one reason is enough.
        let _ = self.refusal.set(reason);
    }

    pub(crate) fn mode(&self) -> IoMode {
        match self.direct_handle() {
            Some(_) => IoMode::Direct,
            None => IoMode::Buffered,
        }
    }

    /// The handle for direct reads, unless they do not work.
    pub(crate) fn direct_handle(&self) -> Option<&File> {
        self.direct.as_ref().filter(|_| self.refusal.get().is_none())
    }

    /// The handle for a read; the buffered one if there is no other.
    pub(crate) fn handle(&self, direct: bool) -> &File {
        self.direct.as_ref().filter(|_| direct).unwrap_or(&self.buffered)
    }

    /// Its number in the file table, by which the ring knows it.
    #[cfg(target_os = "linux")]
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Where a segment ends in the file. An aligned one may end in the block that the file's end
    /// lies in.
    pub(crate) fn check_end(&self, segment: &Segment) -> Result<u64, StorageError> {
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

    pub(crate) fn short(&self, offset: u64, expected: usize, got: usize) -> StorageError {
        StorageError::ShortRead { path: self.path.clone(), offset, expected, got }
    }

    pub(crate) fn read_error(&self, offset: u64, expected: usize, source: io::Error) -> StorageError {
        StorageError::Read { path: self.path.clone(), offset, expected, source }
    }
}

pub(crate) fn is_aligned(offset: u64, bytes: usize, address: usize) -> bool {
    offset.is_multiple_of(BLOCK_BYTES as u64)
        && bytes.is_multiple_of(BLOCK_BYTES)
        && address.is_multiple_of(BLOCK_BYTES)
}
