//! Memory of slots that are given back is the system's again. In a process of its own, so that
//! nothing else moves its resident size.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::fs;

use checkpoint::{ExpertPart, ExpertTable, Extent, LayerExperts};
use experts::{Demand, ExpertStore, Phase, PolicyKind, StoreOptions, Verify};
use storage::{FileStorage, Storage, StorageOptions};
use tensor::Format;

const ROWS: usize = 256;
const COLS: usize = 1600;
const EXPERTS: usize = 64;

fn resident_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * rustix::param::page_size() as u64
}

#[test]
fn slots_given_back_leave_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("experts.bin");
    // Three float matrices: 4.9 MB an expert, not a multiple of a huge page.
    let part_bytes = (ROWS * COLS * 4) as u64;
    let bytes = 3 * part_bytes;
    fs::write(&path, vec![1u8; bytes as usize * EXPERTS]).unwrap();
    let parts = [0, 1, 2].map(|part| ExpertPart {
        format: Format::F32,
        rows: ROWS,
        cols: COLS,
        extent: 0,
        offset: part * part_bytes,
    });
    let extents = (0..EXPERTS as u64).map(|n| vec![Extent { file: 0, offset: n * bytes, bytes }]).collect();
    let table = ExpertTable { layers: vec![LayerExperts { parts, extents, checksums: None }] };
    let storage = FileStorage::new(StorageOptions { threads: 4, ..Default::default() }).unwrap();
    let files = [storage.open(&path).unwrap()];
    let options =
        StoreOptions { slots: EXPERTS, verify: Verify::FirstLoad, lookahead: false, policy: PolicyKind::Lru };
    let mut store = ExpertStore::new(table, &files, storage, options).unwrap();
    let all: Vec<u32> = (0..EXPERTS as u32).collect();
    let fill = |store: &mut ExpertStore| {
        store
            .start(&Demand { layer: 0, experts: &all, phase: Phase::Prefill, tokens: 9, prompt: None })
            .unwrap();
        while let Some(loaded) = store.next_batch(1, true).next() {
            assert!(loaded.parts[2].bytes.iter().all(|byte| *byte == 1));
        }
        assert!(store.failures().is_empty());
    };
    fill(&mut store);
    let full = resident_bytes();
    let slot = store.memory_bytes() as u64 / EXPERTS as u64;
    assert!(full >= EXPERTS as u64 * slot, "the slots are resident: {full}");
    store.resize(EXPERTS / 4).unwrap();
    let shrunk = resident_bytes();
    let given_back = full.saturating_sub(shrunk);
    let expected = (EXPERTS - EXPERTS / 4) as u64 * slot;
    assert!(given_back >= expected * 9 / 10, "{given_back} of {expected} bytes were given back");
    fill(&mut store);
    assert!(resident_bytes() < shrunk + 8 * slot, "16 slots are enough for a wave after the other");
    store.resize(EXPERTS).unwrap();
    fill(&mut store);
    assert!(resident_bytes() + 4 * slot >= full, "and they can be taken again");
}
