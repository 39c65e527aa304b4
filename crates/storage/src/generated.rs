//! Storage whose bytes are computed: for models that need not be on any drive.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Completion, CompletionQueue, FileId, IoMode, ReadRequest, Segment, Storage, StorageError};

/// Computes bytes: (offset, the bytes from there on).
type Fill = dyn Fn(u64, &mut [u8]) + Send + Sync;

/// One file whose bytes a function computes, by whatever path it is opened. Reads complete before
/// [`Storage::submit`] returns.
pub struct GeneratedStorage {
    len_bytes: u64,
    fill: Box<Fill>,
    bytes_read: AtomicU64,
}

const FILE: FileId = FileId(0);

impl GeneratedStorage {
    /// A file of `len_bytes` bytes. `fill` is handed an offset and a buffer for the bytes from
    /// there on; the same offset must always give the same byte. Bytes beyond the end may be asked
    /// for and do not matter.
    pub fn new(len_bytes: u64, fill: impl Fn(u64, &mut [u8]) + Send + Sync + 'static) -> Self {
        Self { len_bytes, fill: Box::new(fill), bytes_read: AtomicU64::new(0) }
    }

    fn read(&self, segment: &Segment, buf: &mut [u8]) -> Result<u64, StorageError> {
        if segment.file != FILE {
            return Err(StorageError::UnknownFile { id: segment.file.0 });
        }
        let end = segment.buf_offset.checked_add(segment.bytes);
        let target = end.and_then(|end| buf.get_mut(segment.buf_offset..end));
        let Some(target) = target else {
            return Err(StorageError::TooLarge { offset: segment.offset, bytes: segment.bytes });
        };
        (self.fill)(segment.offset, target);
        Ok(target.len() as u64)
    }
}

impl Storage for GeneratedStorage {
    fn open(&self, _path: &Path) -> Result<FileId, StorageError> {
        Ok(FILE)
    }

    fn path(&self, _file: FileId) -> PathBuf {
        PathBuf::new()
    }

    fn len_bytes(&self, file: FileId) -> Result<u64, StorageError> {
        if file == FILE { Ok(self.len_bytes) } else { Err(StorageError::UnknownFile { id: file.0 }) }
    }

    fn mode(&self, _file: FileId) -> IoMode {
        IoMode::Direct
    }

    fn fallback_reason(&self) -> Option<String> {
        None
    }

    fn submit(&self, request: ReadRequest, queue: &CompletionQueue) {
        let ReadRequest { tag, mut buf, segments } = request;
        let read: Result<u64, StorageError> =
            segments.iter().map(|segment| self.read(segment, &mut buf)).sum();
        let bytes_read = *read.as_ref().unwrap_or(&0);
        self.bytes_read.fetch_add(bytes_read, Ordering::Relaxed);
        queue.push(Completion { tag, buf, segments, result: read.map(|_| ()), bytes_read, wait_us: 0 });
    }

    fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    fn busy_us(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_range_has_the_bytes_of_its_offset() {
        let storage = GeneratedStorage::new(10_000, |offset, buf| {
            buf.iter_mut().zip(offset..).for_each(|(byte, at)| *byte = (at % 251) as u8);
        });
        let file = storage.open(Path::new("any")).unwrap();
        let (buf, start) = storage.read_range(file, 4_097, 300).unwrap();
        assert!(
            buf[start..start + 300].iter().zip(4_097u64..).all(|(byte, at)| u64::from(*byte) == at % 251)
        );
        assert!(matches!(
            storage.read_range(file, 9_900, 300),
            Err(StorageError::ShortRead { got: 100, .. })
        ));
        assert!(storage.read_range(FileId(1), 0, 1).is_err());
        assert!(storage.bytes_read() >= 300);
    }
}
