//! Reads of real files, direct and buffered: the right bytes or the right error, and always an end.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use storage::{
    AlignedBuf, BLOCK_BYTES, Completion, CompletionQueue, FileId, FileStorage, IoEngine, IoMode, ReadRequest,
    Segment, SplitMix64, Storage, StorageError, StorageOptions,
};
use tempfile::TempDir;

/// Every way of reading. Where there is no ring the pool takes its place, which tests nothing more.
const WAYS: [(IoMode, IoEngine); 4] = [
    (IoMode::Direct, IoEngine::Pread),
    (IoMode::Buffered, IoEngine::Pread),
    (IoMode::Direct, IoEngine::Uring),
    (IoMode::Buffered, IoEngine::Uring),
];

/// Past the page cache.
const DIRECT: [(IoMode, IoEngine); 2] =
    [(IoMode::Direct, IoEngine::Pread), (IoMode::Direct, IoEngine::Uring)];

/// Small, so that a test's reads consist of several.
const PIECE_BYTES: usize = 2 * BLOCK_BYTES;

fn random_file(dir: &TempDir, name: &str, bytes: usize, seed: u64) -> (PathBuf, Vec<u8>) {
    let mut random = SplitMix64::new(seed);
    let contents: Vec<u8> = (0..bytes).map(|_| random.next_u64() as u8).collect();
    let path = dir.path().join(name);
    fs::write(&path, &contents).unwrap();
    (path, contents)
}

fn storage((mode, engine): (IoMode, IoEngine)) -> Arc<FileStorage> {
    FileStorage::with_piece_bytes(StorageOptions { mode, threads: 4, engine }, PIECE_BYTES).unwrap()
}

fn read(storage: &dyn Storage, segments: Vec<Segment>, buf_bytes: usize) -> Completion {
    let queue = CompletionQueue::new();
    let mut buf = AlignedBuf::new(buf_bytes).unwrap();
    buf.fill(0xAA);
    storage.submit(ReadRequest { tag: 7, buf, segments }, &queue);
    let completion = queue.wait_timeout(Duration::from_secs(30)).expect("a completion");
    assert_eq!(completion.tag, 7);
    assert_eq!(completion.buf.len(), buf_bytes);
    assert!(queue.try_next().is_none());
    completion
}

fn segment(file: FileId, offset: u64, bytes: usize, buf_offset: usize) -> Segment {
    Segment { file, offset, bytes, buf_offset }
}

#[test]
fn any_range_reads_the_same_in_every_mode() {
    let dir = TempDir::new().unwrap();
    let seed = 3;
    let mut random = SplitMix64::new(seed);
    for bytes in [0, 1, 4095, 4096, 4097, 50_000] {
        let (path, contents) = random_file(&dir, "file", bytes, bytes as u64);
        let storages = WAYS.map(storage);
        let files: Vec<_> = storages.iter().map(|storage| storage.open(&path).unwrap()).collect();
        for _ in 0..100 {
            let offset = random.below(bytes as u64 + 1);
            let wanted = random.below(bytes as u64 - offset + 1) as usize;
            for ((storage, &file), way) in storages.iter().zip(&files).zip(WAYS) {
                let (buf, start) = storage.read_range(file, offset, wanted).unwrap();
                let expected = &contents[offset as usize..][..wanted];
                let context = format!("{way:?} {offset}+{wanted} of {bytes}, seed {seed}");
                assert!(buf[start..start + wanted] == *expected, "{context}");
            }
        }
    }
}

#[test]
fn random_segments_land_where_they_belong_and_nowhere_else() {
    let dir = TempDir::new().unwrap();
    let seed = 17;
    let mut random = SplitMix64::new(seed);
    let (path, contents) = random_file(&dir, "file", 200_000, 1);
    for way in WAYS {
        let storage = storage(way);
        let file = storage.open(&path).unwrap();
        for round in 0..300 {
            let unit = if random.below(2) == 0 { BLOCK_BYTES as u64 } else { 1 };
            let mut expected = vec![0xAAu8; 100_000usize.next_multiple_of(BLOCK_BYTES)];
            let mut segments = Vec::new();
            let mut end = 0;
            for _ in 0..random.below(5) {
                let buf_offset = end + (random.below(9000) / unit * unit) as usize;
                let bytes = (random.below(15_000) / unit * unit) as usize;
                let offset = random.below(180_000) / unit * unit;
                if buf_offset + bytes > expected.len() {
                    break;
                }
                end = buf_offset + bytes;
                expected[buf_offset..end].copy_from_slice(&contents[offset as usize..][..bytes]);
                segments.push(segment(file, offset, bytes, buf_offset));
            }
            segments.reverse(); // The order is free.
            let completion = read(storage.as_ref(), segments.clone(), expected.len());
            let context = format!("{way:?} seed {seed} round {round} {segments:?}");
            assert!(completion.result.is_ok(), "{context} {:?}", completion.result);
            assert!(completion.buf[..] == expected[..], "{context}");
        }
    }
}

#[test]
fn bytes_are_counted_with_their_blocks() {
    let dir = TempDir::new().unwrap();
    let (path, _) = random_file(&dir, "file", 100_000, 1);
    for way in DIRECT {
        let storage = storage(way);
        let file = storage.open(&path).unwrap();
        if storage.mode(file) == IoMode::Buffered {
            return; // No direct reads here: nothing is widened.
        }
        assert_eq!(storage.bytes_read(), 0);
        let aligned = vec![segment(file, 4096, 8192, 0), segment(file, 40_960, 4096, 8192)];
        let completion = read(storage.as_ref(), aligned, 12_288);
        assert_eq!((completion.bytes_read, storage.bytes_read()), (12_288, 12_288));
        // 10 bytes across a block bound are two blocks.
        let completion = read(storage.as_ref(), vec![segment(file, 4091, 10, 3)], 20);
        assert!(completion.result.is_ok());
        assert_eq!((completion.bytes_read, storage.bytes_read()), (8192, 20_480));
        assert!(storage.busy_us() > 0);
    }
}

#[test]
fn the_last_block_may_end_beyond_the_file() {
    let dir = TempDir::new().unwrap();
    let (path, contents) = random_file(&dir, "file", 10_000, 1);
    for way in WAYS {
        let storage = storage(way);
        let file = storage.open(&path).unwrap();
        let completion = read(storage.as_ref(), vec![segment(file, 8192, 4096, 0)], 4096);
        assert!(completion.result.is_ok());
        assert_eq!(completion.buf[..1808], contents[8192..]);
        assert_eq!(completion.bytes_read, 1808);
        // A whole block more is not there, and neither is a byte of an exact range.
        for (offset, bytes, available) in [(8192, 8192, 1808), (12_288, 4096, 0), (9000, 1001, 1000)] {
            let completion = read(storage.as_ref(), vec![segment(file, offset, bytes, 0)], 8192);
            check_short(completion.result, &path, offset, bytes, available);
        }
        check_short(storage.read_range(file, 9000, 1001), &path, 9000, 1001, 1000);
        check_short(storage.read_range(file, 20_000, 5), &path, 20_000, 5, 0);
        assert!(storage.read_range(file, u64::MAX, usize::MAX).is_err());
    }
}

fn check_short<T>(result: Result<T, StorageError>, path: &Path, offset: u64, expected: usize, got: usize) {
    match result {
        Err(StorageError::ShortRead { path: p, offset: o, expected: e, got: g }) => {
            assert_eq!((p.as_path(), o, e, g), (path, offset, expected, got));
        }
        Err(error) => panic!("not a short read: {error}"),
        Ok(_) => panic!("read {expected} bytes at {offset} of a file without them"),
    }
}

#[test]
fn a_file_cut_off_while_in_use_is_a_short_read() {
    let dir = TempDir::new().unwrap();
    for way in WAYS {
        let (path, contents) = random_file(&dir, "file", 100_000, 1);
        let storage = storage(way);
        let file = storage.open(&path).unwrap();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(50_000).unwrap();
        // The pieces end at multiples of 8192; the one from 49152 on gets 848 bytes.
        let (offset, bytes) = (40_960, 40_960);
        let completion = read(storage.as_ref(), vec![segment(file, offset, bytes, 0)], bytes);
        check_short(completion.result, &path, 49_152, PIECE_BYTES, 848);
        // So does an unaligned read; what lies before the cut is still there.
        let completion = read(storage.as_ref(), vec![segment(file, 49_999, 3, 0)], 3);
        check_short(completion.result, &path, 49_999, 3, 1);
        let (buf, start) = storage.read_range(file, 40_000, 9000).unwrap();
        assert_eq!(buf[start..start + 9000], contents[40_000..49_000]);
    }
}

#[test]
fn bad_requests_come_back_with_their_buffer() {
    let dir = TempDir::new().unwrap();
    let (path, _) = random_file(&dir, "file", 50_000, 1);
    for way in WAYS {
        let storage = storage(way);
        let file = storage.open(&path).unwrap();
        let unknown = FileId(99);
        let bad: [&[Segment]; 6] = [
            &[segment(file, 0, 4096, 8192)],
            &[segment(file, 0, 4096, usize::MAX - 5)],
            &[segment(file, 0, 4096, 0), segment(file, 4096, 4096, 4095)],
            &[segment(file, 0, 4096, 0), segment(file, 4096, 4096, 0)],
            &[segment(file, 0, 4096, 0), segment(unknown, 0, 4096, 4096)],
            &[segment(file, u64::MAX - 5, 4096, 0)],
        ];
        for segments in bad {
            let completion = read(storage.as_ref(), segments.to_vec(), 8192);
            assert!(completion.result.is_err(), "{segments:?}");
            // Nothing was started, since a part of it was wrong.
            assert!(completion.buf.iter().all(|byte| *byte == 0xAA), "{segments:?}");
        }
        assert!(storage.len_bytes(unknown).is_err());
        let nothing = read(storage.as_ref(), Vec::new(), 0);
        assert!(nothing.result.is_ok() && nothing.bytes_read == 0);
    }
}

#[test]
fn what_cannot_be_opened_is_named() {
    let dir = TempDir::new().unwrap();
    let storage = storage(DIRECT[0]);
    let missing = dir.path().join("missing");
    let message = storage.open(&missing).unwrap_err().to_string();
    assert!(message.contains("missing: cannot open"), "{message}");
    assert!(matches!(storage.open(dir.path()), Err(StorageError::NotAFile { .. })));
    for threads in [0, 257] {
        let options = StorageOptions { threads, ..Default::default() };
        assert!(matches!(FileStorage::new(options), Err(StorageError::Threads { .. })));
    }
}

#[test]
fn several_threads_that_wait_for_one_read_each_all_get_it() {
    let dir = TempDir::new().unwrap();
    let (path, contents) = random_file(&dir, "file", 1 << 16, 1);
    for way in DIRECT {
        let storage = storage(way);
        let file = storage.open(&path).unwrap();
        let (storage, contents) = (&storage, &contents);
        let reader = |polls: bool| {
            let queue = CompletionQueue::new();
            for tag in 0..400 {
                let offset = tag % 16 * 4096;
                let buf = AlignedBuf::new(4096).unwrap();
                let segments = vec![segment(file, offset, 4096, 0)];
                storage.submit(ReadRequest { tag, buf, segments }, &queue);
                // Looking without waiting takes from the engine what others wait for.
                let polled = if polls { (0..50).find_map(|_| queue.try_next()) } else { None };
                let completion = polled.or_else(|| queue.wait_timeout(Duration::from_secs(30)));
                let completion = completion.expect("a completion");
                assert_eq!(completion.tag, tag);
                assert!(completion.buf[..] == contents[offset as usize..][..4096]);
            }
        };
        thread::scope(|scope| {
            for polls in [false, true, false, true] {
                scope.spawn(move || reader(polls));
            }
        });
    }
}

#[test]
fn closing_the_storage_completes_every_read() {
    let dir = TempDir::new().unwrap();
    let (path, contents) = random_file(&dir, "file", 1 << 20, 1);
    for way in WAYS {
        let storage = storage(way);
        let file = storage.open(&path).unwrap();
        let queue = CompletionQueue::new();
        for tag in 0..50 {
            let buf = AlignedBuf::new(1 << 20).unwrap();
            let segments = vec![segment(file, 0, 1 << 20, 0)];
            storage.submit(ReadRequest { tag, buf, segments }, &queue);
        }
        drop(storage);
        for _ in 0..50 {
            let completion = queue.wait_timeout(Duration::from_secs(30)).expect("a completion");
            match completion.result {
                Ok(()) => assert!(completion.buf[..] == contents[..]),
                Err(error) => assert!(matches!(error, StorageError::Closed), "{error}"),
            }
            assert_eq!(completion.buf.len(), 1 << 20);
        }
    }
}

#[test]
fn a_file_system_without_direct_reads_is_read_through_the_page_cache_and_says_so() {
    // No file of sysfs can be opened for direct reads.
    let path = Path::new("/sys/kernel/notes");
    let Ok(contents) = fs::read(path) else { return };
    for way in DIRECT {
        let storage = storage(way);
        let file = storage.open(path).unwrap();
        assert_eq!(storage.mode(file), IoMode::Buffered);
        let reason = storage.fallback_reason().unwrap();
        assert!(reason.contains("/sys/kernel/notes: direct reads refused"), "{reason}");
        let (buf, start) = storage.read_range(file, 0, contents.len()).unwrap();
        assert_eq!(buf[start..start + contents.len()], contents);
    }
}

#[test]
fn the_engine_that_reads_is_named() {
    assert_eq!(storage((IoMode::Direct, IoEngine::Pread)).engine(), IoEngine::Pread);
    assert_eq!(storage((IoMode::Direct, IoEngine::Pread)).engine_fallback(), None);
    let ring = storage((IoMode::Direct, IoEngine::Uring));
    match ring.engine_fallback() {
        None => assert_eq!(ring.engine(), IoEngine::Uring),
        Some(reason) => assert!(ring.engine() == IoEngine::Pread && reason.contains("io_uring"), "{reason}"),
    }
    assert_ne!(storage((IoMode::Direct, IoEngine::Auto)).engine(), IoEngine::Auto);
}

#[test]
fn opening_and_closing_engines_leaves_nothing_behind() {
    let dir = TempDir::new().unwrap();
    let (path, contents) = random_file(&dir, "file", 30_000, 1);
    for round in 0..60 {
        let storage = storage(WAYS[round % 4]);
        let file = storage.open(&path).unwrap();
        if round % 3 > 0 {
            let (buf, start) = storage.read_range(file, 1, 20_000).unwrap();
            assert!(buf[start..start + 20_000] == contents[1..20_001]);
        }
    }
}

#[test]
fn buffered_reads_that_were_asked_for_are_no_fall_back() {
    let dir = TempDir::new().unwrap();
    let (path, _) = random_file(&dir, "file", 10, 1);
    let storage = storage((IoMode::Buffered, IoEngine::Auto));
    let file = storage.open(&path).unwrap();
    assert_eq!(storage.mode(file), IoMode::Buffered);
    assert_eq!(storage.fallback_reason(), None);
    assert_eq!(storage.path(file), path);
    assert_eq!(storage.len_bytes(file).unwrap(), 10);
}

#[test]
fn many_requests_of_several_threads_at_once() {
    let dir = TempDir::new().unwrap();
    let (path, contents) = random_file(&dir, "file", 300_000, 5);
    for way in WAYS {
        let storage = storage(way);
        let file = storage.open(&path).unwrap();
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let (storage, contents) = (&storage, &contents);
                scope.spawn(move || {
                    let mut random = SplitMix64::new(seed);
                    for _ in 0..100 {
                        let offset = random.below(200_000);
                        let bytes = random.below(100_000) as usize;
                        let (buf, start) = storage.read_range(file, offset, bytes).unwrap();
                        assert!(
                            buf[start..start + bytes] == contents[offset as usize..][..bytes],
                            "{way:?} seed {seed} {offset}+{bytes}"
                        );
                    }
                });
            }
        });
    }
    // The file is closed with its storage.
    File::open(&path).unwrap();
}
