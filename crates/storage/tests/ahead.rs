//! Reads ahead: what is wanted of them comes, what is not comes back unread or read, and never is a buffer lost.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use storage::{
    AlignedBuf, Completion, CompletionQueue, FaultPlan, FaultyStorage, FileId, FileStorage, IoEngine,
    ReadRequest, Segment, SplitMix64, Storage, StorageError, StorageOptions,
};
use tempfile::TempDir;

const BYTES: usize = 256 << 10;
const RECORDS: u64 = 32;

fn contents() -> Vec<u8> {
    (0..RECORDS as usize * BYTES).map(|at| (at / 4096 * 7 + at % 251) as u8).collect()
}

fn file(dir: &TempDir, storage: &dyn Storage) -> FileId {
    let path = dir.path().join("file");
    std::fs::write(&path, contents()).unwrap();
    storage.open(&path).unwrap()
}

fn request(file: FileId, tag: u64) -> ReadRequest {
    let segment = Segment { file, offset: tag % RECORDS * BYTES as u64, bytes: BYTES, buf_offset: 0 };
    ReadRequest { tag, buf: AlignedBuf::new(BYTES).unwrap(), segments: vec![segment] }
}

fn take(queue: &CompletionQueue, count: usize) -> Vec<Completion> {
    let mut completions: Vec<_> =
        (0..count).map(|_| queue.wait_timeout(Duration::from_secs(30)).expect("a completion")).collect();
    completions.sort_by_key(|completion| completion.tag);
    completions
}

fn storages() -> Vec<Arc<dyn Storage>> {
    let real =
        |engine| FileStorage::new(StorageOptions { threads: 2, engine, ..Default::default() }).unwrap();
    let delays = FaultPlan { seed: 1, latency_us_max: 2000, ..Default::default() };
    let faulty = FaultyStorage::new(real(IoEngine::Pread), delays).unwrap();
    vec![real(IoEngine::Pread), real(IoEngine::Uring), faulty]
}

#[test]
fn what_is_wanted_comes_and_the_rest_comes_back() {
    let expected = contents();
    for storage in storages() {
        let dir = TempDir::new().unwrap();
        let file = file(&dir, storage.as_ref());
        let (queue, other) = (CompletionQueue::new(), CompletionQueue::new());
        for seed in 0..20 {
            let mut random = SplitMix64::new(seed);
            for tag in 0..24 {
                storage.submit_ahead(request(file, tag), &queue);
            }
            storage.submit_ahead(request(file, 100), &other);
            storage.submit(request(file, 30), &queue);
            let wanted: Vec<u64> = (0..24).filter(|_| random.below(2) == 0).collect();
            storage.settle_ahead(&queue, &wanted);
            for completion in take(&queue, 25).into_iter().chain(take(&other, 1)) {
                let Completion { tag, buf, segments, result, .. } = completion;
                let start = (tag % RECORDS) as usize * BYTES;
                assert_eq!((buf.len(), segments.len()), (BYTES, 1));
                match result {
                    Ok(()) => assert!(buf[..] == expected[start..start + BYTES], "tag {tag}, seed {seed}"),
                    Err(StorageError::Withdrawn) => {
                        assert!(tag < 24 && !wanted.contains(&tag), "tag {tag}, seed {seed}");
                    }
                    Err(error) => panic!("{error}, tag {tag}, seed {seed}"),
                }
            }
        }
    }
}

#[test]
fn reads_ahead_are_done_even_if_nobody_decides() {
    for storage in storages() {
        let dir = TempDir::new().unwrap();
        let file = file(&dir, storage.as_ref());
        let queue = CompletionQueue::new();
        (0..RECORDS).for_each(|tag| storage.submit_ahead(request(file, tag), &queue));
        let completions = take(&queue, RECORDS as usize);
        assert!(completions.iter().all(|completion| completion.result.is_ok()));
        storage.settle_ahead(&queue, &[]);
    }
}

#[test]
fn closing_the_storage_completes_reads_ahead() {
    for storage in storages().into_iter().take(2) {
        let dir = TempDir::new().unwrap();
        let file = file(&dir, storage.as_ref());
        let queue = CompletionQueue::new();
        (0..RECORDS).for_each(|tag| storage.submit_ahead(request(file, tag), &queue));
        drop(storage);
        for completion in take(&queue, RECORDS as usize) {
            assert!(
                matches!(completion.result, Ok(()) | Err(StorageError::Closed)),
                "{:?}",
                completion.result
            );
        }
    }
}
