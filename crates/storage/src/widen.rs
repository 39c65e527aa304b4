//! From wanted byte ranges to reads of whole blocks.
//!
//! Direct reads need offset, length and memory aligned to blocks, and what is wanted (a tensor in a
//! safetensors file) starts anywhere. Widening moves the start down and the end up to block bounds
//! and says where in the buffer the wanted bytes then lie. At most two blocks per range are read in
//! vain.

use crate::{FileId, Segment, StorageError};

/// The layout of several wanted ranges in one buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Widened {
    /// What to read: ascending and disjoint in the buffer, all bounds multiples of the block size.
    pub segments: Vec<Segment>,
    /// Where each wanted range starts in the buffer, in the order given.
    pub starts: Vec<usize>,
    /// Length of the buffer.
    pub buf_bytes: usize,
}

/// Layout of the wanted ranges `(file, offset, bytes)` in one buffer when each is widened to block
/// bounds. A range that begins in the last block of the one before it (or right behind it) joins
/// its segment, so that neighbours are one read and no block is read twice.
///
/// # Errors
/// [`StorageError::TooLarge`] if a range or the buffer cannot be addressed,
/// [`StorageError::BadBlock`] if `block_bytes` is no power of two.
pub fn widen(extents: &[(FileId, u64, u64)], block_bytes: usize) -> Result<Widened, StorageError> {
    let mut widened = Widened::default();
    widen_into(extents.iter().copied(), block_bytes, &mut widened)?;
    Ok(widened)
}

/// [`widen`] into vectors that are used again.
///
/// # Errors
/// As [`widen`]; `target` is then unspecified.
pub fn widen_into(
    extents: impl IntoIterator<Item = (FileId, u64, u64)>,
    block_bytes: usize,
    target: &mut Widened,
) -> Result<(), StorageError> {
    if !block_bytes.is_power_of_two() {
        return Err(StorageError::BadBlock { block_bytes });
    }
    // usize is at most 64 bits wide on every target of Rust.
    let block = block_bytes as u64;
    target.segments.clear();
    target.starts.clear();
    target.buf_bytes = 0;
    for (file, offset, bytes) in extents {
        if bytes == 0 {
            target.starts.push(target.buf_bytes);
            continue;
        }
        let bytes_in_memory =
            usize::try_from(bytes).map_err(|_| StorageError::TooLarge { offset, bytes: usize::MAX })?;
        let too_large = || StorageError::TooLarge { offset, bytes: bytes_in_memory };
        let first = offset & !(block - 1);
        let end = offset
            .checked_add(bytes)
            .and_then(|end| end.checked_next_multiple_of(block))
            .ok_or_else(too_large)?;
        let to_usize = |value: u64| usize::try_from(value).map_err(|_| too_large());
        if let Some(last) = target.segments.last_mut().filter(|last| joins(last, file, first)) {
            // The joined segment is the last one, so it ends where the buffer does.
            let last_end = last.offset + last.bytes as u64;
            let more = to_usize(end.saturating_sub(last_end))?;
            target.buf_bytes = target.buf_bytes.checked_add(more).ok_or_else(too_large)?;
            last.bytes += more;
            target.starts.push(last.buf_offset + to_usize(offset - last.offset)?);
        } else {
            let length = to_usize(end - first)?;
            let buf_offset = target.buf_bytes;
            target.buf_bytes = buf_offset.checked_add(length).ok_or_else(too_large)?;
            target.starts.push(buf_offset + to_usize(offset - first)?);
            target.segments.push(Segment { file, offset: first, bytes: length, buf_offset });
        }
    }
    Ok(())
}

/// Whether a range whose first block starts at `first` continues `last`.
fn joins(last: &Segment, file: FileId, first: u64) -> bool {
    last.file == file && first >= last.offset && first <= last.offset + last.bytes as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SplitMix64;

    const F: FileId = FileId(0);
    const G: FileId = FileId(1);

    fn check(extents: &[(FileId, u64, u64)], segments: &[(u64, usize, usize)], starts: &[usize]) {
        let widened = widen(extents, 4096).unwrap();
        let got: Vec<_> = widened.segments.iter().map(|s| (s.offset, s.bytes, s.buf_offset)).collect();
        assert_eq!(got, segments);
        assert_eq!(widened.starts, starts);
        assert_eq!(widened.buf_bytes, segments.iter().map(|s| s.1).sum::<usize>());
    }

    #[test]
    fn literal_layouts() {
        check(&[], &[], &[]);
        check(&[(F, 0, 4096)], &[(0, 4096, 0)], &[0]);
        check(&[(F, 4095, 2)], &[(0, 8192, 0)], &[4095]);
        check(&[(F, 5000, 0), (F, 1, 1)], &[(0, 4096, 0)], &[0, 1]);
        // Neighbours become one read; a range in a block that is read already costs nothing.
        check(&[(F, 100, 8000), (F, 8100, 4188)], &[(0, 12288, 0)], &[100, 8100]);
        check(&[(F, 4096, 8192), (F, 5000, 10)], &[(4096, 8192, 0)], &[0, 904]);
        // A gap, a step back and another file each start a segment.
        check(&[(F, 0, 10), (F, 8192, 10)], &[(0, 4096, 0), (8192, 4096, 4096)], &[0, 4096]);
        check(&[(F, 8192, 10), (F, 7, 10)], &[(8192, 4096, 0), (0, 4096, 4096)], &[0, 4103]);
        check(&[(F, 0, 10), (G, 10, 10)], &[(0, 4096, 0), (0, 4096, 4096)], &[0, 4106]);
    }

    #[test]
    fn hostile_ranges_are_refused() {
        for extent in [(F, u64::MAX, 1), (F, 1, u64::MAX), (F, u64::MAX - 4096, 4096)] {
            assert!(matches!(widen(&[extent], 4096), Err(StorageError::TooLarge { .. })));
        }
        let half = 1 << 63;
        assert!(widen(&[(F, 0, half), (G, 0, half)], 4096).is_err());
        assert!(matches!(widen(&[], 1000), Err(StorageError::BadBlock { .. })));
        assert!(matches!(widen(&[], 0), Err(StorageError::BadBlock { .. })));
    }

    #[test]
    fn random_layouts_cover_what_is_wanted() {
        let seed = 11;
        let mut random = SplitMix64::new(seed);
        for round in 0..2000 {
            let block = 1usize << (random.below(4) * 4);
            let extents: Vec<_> = (0..random.below(6))
                .map(|_| (FileId(random.below(2) as u32), random.below(200_000), random.below(50_000)))
                .collect();
            let widened = widen(&extents, block).unwrap();
            let context = format!("seed {seed} round {round} {extents:?} {widened:?}");
            let mut end = 0;
            for segment in &widened.segments {
                assert_eq!(segment.buf_offset, end, "{context}");
                assert!(segment.offset.is_multiple_of(block as u64), "{context}");
                assert!(segment.bytes.is_multiple_of(block) && segment.bytes > 0, "{context}");
                end += segment.bytes;
            }
            assert_eq!(end, widened.buf_bytes, "{context}");
            for ((file, offset, bytes), start) in extents.iter().zip(&widened.starts) {
                let covered = *bytes == 0
                    || widened.segments.iter().any(|s| {
                        s.file == *file
                            && s.buf_offset <= *start
                            && start + *bytes as usize <= s.buf_offset + s.bytes
                            && s.offset + (start - s.buf_offset) as u64 == *offset
                    });
                assert!(covered, "{context}");
            }
        }
    }
}
