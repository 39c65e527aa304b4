//! Page-aligned memory, and the one way in which several threads may fill it at the same time.
//!
//! A read of one expert is several reads into one buffer by several threads. Instead of handing raw
//! pointers around, [`Lender`] splits a buffer into [`Piece`]s that cannot overlap; each is a `&mut
//! [u8]` of its own and keeps the memory alive. The buffer is whole again when the last piece is
//! gone. All the `unsafe` of this crate that is not a system call lies in this file.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use crate::{BLOCK_BYTES, StorageError, os};

/// Aligned, zero-initialised memory of a fixed length that owns its bytes.
///
/// It starts on a page of the system, or, when made by [`AlignedBuf::many`], at a multiple of
/// [`BLOCK_BYTES`]. On Linux and Apple's systems no physical memory is taken until a page is first written.
pub struct AlignedBuf {
    /// Dangling but aligned when `bytes` is 0.
    start: NonNull<u8>,
    bytes: usize,
    /// Keeps the memory; None when `bytes` is 0.
    _mapping: Option<Arc<Mapping>>,
}

// SAFETY: an AlignedBuf is the only owner of its bytes, as a Box<[u8]> is. Buffers that share a mapping
// have different parts of it.
unsafe impl Send for AlignedBuf {}
// SAFETY: a shared AlignedBuf only gives out shared slices of plain bytes.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// `bytes` zeroed bytes.
    ///
    /// # Errors
    /// [`StorageError::Allocate`] if there is no such memory.
    pub fn new(bytes: usize) -> Result<AlignedBuf, StorageError> {
        if bytes == 0 {
            return Ok(AlignedBuf::empty());
        }
        let mapping = Arc::new(Mapping::new(bytes)?);
        Ok(AlignedBuf { start: mapping.start, bytes, _mapping: Some(mapping) })
    }

    /// `count` buffers of `bytes` zeroed bytes each, side by side in one area of memory that is given back
    /// when the last of them is gone. So even buffers smaller than a huge page come to lie in huge pages,
    /// which on a drive with a limit on the pieces of memory in one request is worth half the read rate.
    ///
    /// # Errors
    /// [`StorageError::Allocate`] if there is no such memory.
    pub fn many(count: usize, bytes: usize) -> Result<Vec<AlignedBuf>, StorageError> {
        if bytes == 0 {
            return Ok((0..count).map(|_| AlignedBuf::empty()).collect());
        }
        if count == 0 {
            return Ok(Vec::new());
        }
        let too_large = || StorageError::Allocate {
            bytes: bytes.saturating_mul(count),
            source: io::ErrorKind::OutOfMemory.into(),
        };
        let stride = bytes.checked_next_multiple_of(BLOCK_BYTES).ok_or_else(too_large)?;
        let mapping = Arc::new(Mapping::new(stride.checked_mul(count).ok_or_else(too_large)?)?);
        let part = |index: usize| {
            // SAFETY: `index` is less than `count`, so the part starts and ends in the mapping of `count`
            // strides. Parts of different indices do not overlap.
            let start = unsafe { mapping.start.add(index * stride) };
            AlignedBuf { start, bytes, _mapping: Some(Arc::clone(&mapping)) }
        };
        Ok((0..count).map(part).collect())
    }

    /// Gives the memory's pages back to the system, where it can. What is in the buffer is
    /// unspecified afterwards; it can be written again, which takes pages again.
    pub fn give_back(&mut self) {
        if self.bytes > 0 {
            // SAFETY: the range is this buffer's alone, and nobody has a slice of it. Its bytes
            // stay initialised, whatever they are.
            unsafe { os::give_back(self.start, self.bytes) };
        }
    }

    /// A buffer of length 0, which takes no memory.
    pub fn empty() -> AlignedBuf {
        AlignedBuf { start: NonNull::<Page>::dangling().cast(), bytes: 0, _mapping: None }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether the length is 0.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

/// Memory from the system, given back when the last buffer in it is gone.
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping itself is never read or written; it only carries the address to the drop.
unsafe impl Send for Mapping {}
// SAFETY: as above: there is nothing to be done with a shared Mapping.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `bytes` is not 0.
    fn new(bytes: usize) -> Result<Mapping, StorageError> {
        let refused = |source| StorageError::Allocate { bytes, source };
        if isize::try_from(bytes).is_err() {
            return Err(refused(io::ErrorKind::OutOfMemory.into()));
        }
        let start = os::map_zeroed(bytes).map_err(refused)?;
        debug_assert!(start.addr().get().is_multiple_of(BLOCK_BYTES));
        Ok(Mapping { start, bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `start` and `bytes` come from `map_zeroed` in `new`; every buffer in the mapping holds it
        // by an Arc, so that none is left now.
        unsafe { os::unmap(self.start, self.bytes) };
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` is valid for `bytes` initialised bytes (or dangling, aligned, with length
        // 0). Writing through `start` elsewhere needs `&mut self` or, in `Piece`, `self` moved into
        // a Lender.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` is exclusive.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for AlignedBuf {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} bytes)", self.bytes)
    }
}

/// For the alignment of the empty buffer.
#[repr(align(4096))]
struct Page;

/// A buffer that is out on loan: holds it until every [`Piece`] is gone.
pub(crate) struct Lender {
    /// Never dereferenced as a slice while pieces are out.
    lent: Arc<AlignedBuf>,
    /// Pieces may only start here or later, which is why they cannot overlap.
    taken_to: usize,
}

impl Lender {
    pub(crate) fn new(buf: AlignedBuf) -> Self {
        Lender { lent: Arc::new(buf), taken_to: 0 }
    }

    /// Length of the buffer.
    pub(crate) fn len(&self) -> usize {
        self.lent.len()
    }

    /// Lends a part of the buffer. None if it starts before the end of an earlier one or leaves the
    /// buffer.
    pub(crate) fn take(&mut self, range: Range<usize>) -> Option<Piece> {
        if range.start < self.taken_to || range.end < range.start || range.end > self.lent.len() {
            return None;
        }
        self.taken_to = range.end;
        Some(Piece { lent: Arc::clone(&self.lent), range })
    }

    /// The buffer, if every piece is gone.
    pub(crate) fn into_inner(self) -> Option<AlignedBuf> {
        Arc::into_inner(self.lent)
    }
}

/// A part of a lent buffer that nobody else has.
pub(crate) struct Piece {
    lent: Arc<AlignedBuf>,
    range: Range<usize>,
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the range lies in the buffer (checked by `take`), whose memory `lent` keeps
        // alive. No other piece has any byte of it (`take` only goes forward), and the buffer
        // itself is out of everyone's reach: `lent` is private to Lender and Piece, and neither
        // makes a slice of the whole.
        unsafe { slice::from_raw_parts(self.lent.start.as_ptr().add(self.range.start), self.range.len()) }
    }
}

impl DerefMut for Piece {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` is the only way to these bytes. The pointer comes from
        // the mapping itself and not from a shared slice, so it may be written through.
        unsafe { slice::from_raw_parts_mut(self.lent.start.as_ptr().add(self.range.start), self.range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_zero_aligned_and_of_the_length_asked_for() {
        for bytes in [1, 4095, 4096, 4097, 3 << 20] {
            let mut buf = AlignedBuf::new(bytes).unwrap();
            assert_eq!(buf.len(), bytes);
            assert_eq!(buf.as_ptr().addr() % BLOCK_BYTES, 0);
            assert!(buf.iter().all(|b| *b == 0));
            buf.fill(7);
            assert!(buf.iter().all(|b| *b == 7));
        }
        let empty = AlignedBuf::new(0).unwrap();
        assert!(empty.is_empty() && empty.as_ptr().addr().is_multiple_of(BLOCK_BYTES));
    }

    #[test]
    fn many_buffers_are_apart_and_outlive_each_other() {
        let mut bufs = AlignedBuf::many(5, 5000).unwrap();
        for (value, buf) in (0u8..).zip(&mut bufs) {
            assert!(buf.len() == 5000 && buf.as_ptr().addr().is_multiple_of(BLOCK_BYTES));
            assert!(buf.iter().all(|byte| *byte == 0));
            buf.fill(value);
        }
        let last = bufs.pop().unwrap();
        for (value, buf) in (0u8..).zip(&bufs) {
            assert!(buf.iter().all(|byte| *byte == value));
        }
        drop(bufs);
        assert!(last.iter().all(|byte| *byte == 4));
        assert!(AlignedBuf::many(0, 10).unwrap().is_empty());
        assert!(AlignedBuf::many(3, 0).unwrap().iter().all(|buf| buf.is_empty()));
        for (count, bytes) in [(2, usize::MAX), (usize::MAX, 2), (1 << 40, 1 << 40)] {
            assert!(matches!(AlignedBuf::many(count, bytes), Err(StorageError::Allocate { .. })));
        }
    }

    #[test]
    fn memory_given_back_can_be_used_again() {
        let mut bufs = AlignedBuf::many(3, 3 << 20).unwrap();
        bufs.iter_mut().for_each(|buf| buf.fill(9));
        bufs[1].give_back();
        assert!(bufs[0].iter().chain(bufs[2].iter()).all(|byte| *byte == 9));
        bufs[1].fill(8);
        assert!(bufs[1].iter().all(|byte| *byte == 8));
        AlignedBuf::empty().give_back();
    }

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        for bytes in [usize::MAX, isize::MAX as usize, 1 << 60] {
            assert!(matches!(AlignedBuf::new(bytes), Err(StorageError::Allocate { .. })));
        }
    }

    #[test]
    fn pieces_never_overlap_or_leave_the_buffer() {
        let mut lender = Lender::new(AlignedBuf::new(100).unwrap());
        assert!(lender.take(0..10).is_some());
        assert!(lender.take(9..20).is_none());
        assert!(lender.take(0..0).is_none());
        #[expect(clippy::reversed_empty_ranges)]
        let reversed = 30..20;
        assert!(lender.take(reversed).is_none());
        assert!(lender.take(50..101).is_none());
        assert!(lender.take(50..100).is_some());
        assert!(lender.take(100..100).is_some());
    }

    #[test]
    fn threads_fill_pieces_and_the_buffer_comes_back() {
        let mut lender = Lender::new(AlignedBuf::new(64 * 1000).unwrap());
        let pieces: Vec<_> = (0..64).map(|i| lender.take(i * 1000..(i + 1) * 1000).unwrap()).collect();
        std::thread::scope(|scope| {
            for (i, mut piece) in pieces.into_iter().enumerate() {
                scope.spawn(move || {
                    piece.fill(i as u8);
                    assert!(piece.iter().all(|b| *b == i as u8));
                });
            }
        });
        let buf = lender.into_inner().unwrap();
        assert!(buf.iter().enumerate().all(|(at, b)| *b == (at / 1000) as u8));
    }

    #[test]
    fn a_buffer_with_pieces_out_does_not_come_back() {
        let mut lender = Lender::new(AlignedBuf::new(10).unwrap());
        let mut piece = lender.take(0..10).unwrap();
        assert!(lender.into_inner().is_none());
        piece.fill(1); // The memory is still there.
    }
}
