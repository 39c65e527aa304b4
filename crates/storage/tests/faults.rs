//! The fault-injecting twin: reproducible from its seed, and as bad as it says.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use storage::{
    AlignedBuf, Completion, CompletionQueue, FaultKind, FaultPlan, FaultyStorage, FileId, FileStorage,
    ReadRequest, Segment, Storage, StorageError, StorageOptions,
};
use tempfile::TempDir;

const BYTES: usize = 8192;

fn faulty(dir: &TempDir, plan: FaultPlan) -> (Arc<FaultyStorage>, FileId) {
    let path = dir.path().join("file");
    std::fs::write(&path, vec![0x11; BYTES]).unwrap();
    let inner = FileStorage::new(StorageOptions { threads: 2, ..Default::default() }).unwrap();
    let faulty = FaultyStorage::new(inner, plan).unwrap();
    let file = faulty.open(&path).unwrap();
    (faulty, file)
}

/// Submits `count` reads at once; the completions by tag.
fn read_all(storage: &dyn Storage, file: FileId, count: u64) -> Vec<Completion> {
    let queue = CompletionQueue::new();
    for tag in 0..count {
        let buf = AlignedBuf::new(BYTES).unwrap();
        let segments = vec![Segment { file, offset: 0, bytes: BYTES, buf_offset: 0 }];
        storage.submit(ReadRequest { tag, buf, segments }, &queue);
    }
    let mut completions: Vec<_> =
        (0..count).map(|_| queue.wait_timeout(Duration::from_secs(30)).expect("a completion")).collect();
    completions.sort_by_key(|completion| completion.tag);
    assert!(completions.iter().enumerate().all(|(tag, c)| c.tag == tag as u64));
    completions
}

/// What happened, in words that do not depend on time.
fn outcomes(completions: &[Completion]) -> Vec<String> {
    completions
        .iter()
        .map(|c| match &c.result {
            Ok(()) => format!("ok {}", c.buf.iter().filter(|byte| **byte != 0x11).count()),
            Err(error) => error.to_string(),
        })
        .collect()
}

#[test]
fn the_default_plan_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let (storage, file) = faulty(&dir, FaultPlan::default());
    assert!(outcomes(&read_all(storage.as_ref(), file, 50)).iter().all(|o| o == "ok 0"));
    assert_eq!((storage.reads(), storage.bytes_read()), (50, 50 * BYTES as u64));
}

#[test]
fn the_same_seed_fails_the_same_reads() {
    let dir = TempDir::new().unwrap();
    let run = |seed| {
        let plan = FaultPlan {
            seed,
            eio_per_mille: 200,
            short_per_mille: 200,
            latency_us_max: 500,
            ..Default::default()
        };
        let (storage, file) = faulty(&dir, plan);
        assert_eq!(storage.seed(), seed);
        outcomes(&read_all(storage.as_ref(), file, 200))
    };
    let first = run(1);
    assert_eq!(first, run(1));
    assert_ne!(first, run(2));
    let count = |what: &str| first.iter().filter(|outcome| outcome.contains(what)).count();
    assert!((20..=60).contains(&count("injected")), "{first:?}");
    assert!((20..=60).contains(&count("short read")), "{first:?}");
    assert!(first.iter().any(|outcome| outcome.contains("seed 1, read")), "{first:?}");
}

#[test]
fn only_demand_reads_that_are_not_calm_are_counted() {
    let dir = TempDir::new().unwrap();
    let (storage, file) = faulty(&dir, FaultPlan { fail_nth_demand: Some(2), ..Default::default() });
    let (queue, ahead) = (CompletionQueue::new(), [1, 3, 5]);
    storage.set_calm(true);
    read_all(storage.as_ref(), file, 4);
    storage.set_calm(false);
    for tag in 0..7 {
        let segments = vec![Segment { file, offset: 0, bytes: BYTES, buf_offset: 0 }];
        let request = ReadRequest { tag, buf: AlignedBuf::new(BYTES).unwrap(), segments };
        match ahead.contains(&tag) {
            true => storage.submit_ahead(request, &queue),
            false => storage.submit(request, &queue),
        }
    }
    let failed: Vec<u64> =
        (0..7).map(|_| queue.wait()).filter(|done| done.result.is_err()).map(|done| done.tag).collect();
    assert_eq!((failed, storage.demand_reads()), (vec![4], 4));
}

#[test]
fn the_nth_demand_read_fails_in_its_own_way() {
    let dir = TempDir::new().unwrap();
    for kind in [FaultKind::Eio, FaultKind::Short, FaultKind::FlippedBit] {
        let plan = FaultPlan { fail_nth_demand: Some(3), kind, ..Default::default() };
        let (storage, file) = faulty(&dir, plan);
        for (tag, completion) in read_all(storage.as_ref(), file, 6).iter().enumerate() {
            let wrong_bytes = completion.buf.iter().filter(|byte| **byte != 0x11).count();
            match (&completion.result, kind) {
                (Ok(()), FaultKind::FlippedBit) if tag == 3 => assert_eq!(wrong_bytes, 1),
                (Ok(()), _) => assert!(tag != 3 && wrong_bytes == 0),
                (Err(StorageError::Read { .. }), FaultKind::Eio) => {
                    assert!(tag == 3 && wrong_bytes == BYTES);
                }
                (Err(StorageError::ShortRead { expected, got, .. }), FaultKind::Short) => {
                    assert!(tag == 3 && *expected == BYTES && wrong_bytes == BYTES - got);
                }
                (Err(error), _) => panic!("{kind:?} read {tag}: {error}"),
            }
        }
    }
}

#[test]
fn a_calm_storage_fails_nothing() {
    let dir = TempDir::new().unwrap();
    let plan = FaultPlan { eio_per_mille: 1000, ..Default::default() };
    let (storage, file) = faulty(&dir, plan);
    assert!(storage.read_range(file, 5, 100).is_err());
    storage.set_calm(true);
    let (buf, start) = storage.read_range(file, 5, 100).unwrap();
    assert!(buf[start..start + 100].iter().all(|byte| *byte == 0x11));
    storage.set_calm(false);
    assert!(storage.read_range(file, 5, 100).is_err());
}

#[test]
fn delays_are_bounded_and_do_not_block_the_submitter() {
    let dir = TempDir::new().unwrap();
    let plan = FaultPlan { seed: 4, latency_us_max: 50_000, ..Default::default() };
    let (storage, file) = faulty(&dir, plan);
    let started = Instant::now();
    let completions = read_all(storage.as_ref(), file, 40);
    // They overlap: together they waited far longer than all of it took.
    let elapsed_us = started.elapsed().as_micros() as u64;
    let waited_us: u64 = completions.iter().map(|c| c.wait_us).sum();
    assert!(elapsed_us < waited_us / 2, "{elapsed_us} us for waits of {waited_us} us");
    let slow = completions.iter().filter(|c| c.wait_us > 5_000).count();
    assert!(slow > 20, "{slow} of 40 took more than a tenth of the greatest delay");
}

#[test]
fn closing_delivers_what_is_held_back() {
    let dir = TempDir::new().unwrap();
    let plan = FaultPlan { latency_us_max: 20_000, ..Default::default() };
    let (storage, file) = faulty(&dir, plan);
    let queue = CompletionQueue::new();
    for tag in 0..20 {
        let buf = AlignedBuf::new(BYTES).unwrap();
        let segments = vec![Segment { file, offset: 0, bytes: BYTES, buf_offset: 0 }];
        storage.submit(ReadRequest { tag, buf, segments }, &queue);
    }
    drop(storage);
    for _ in 0..20 {
        assert!(queue.wait_timeout(Duration::from_secs(30)).expect("a completion").result.is_ok());
    }
}
