//! The replay of a trace says what the store did, and the slots can become more or fewer at any time.
#![allow(clippy::unwrap_used)]

mod bank;

use bank::{Bank, Container, demand, file_storage, random_list};
use experts::replay::{optimum, replay};
use experts::trace::Trace;
use experts::{Demand, ExpertStore, Occupancy, PolicyKind, PromptUse, StoreOptions, Verify};
use storage::{IoMode, SplitMix64};

fn store(bank: &Bank, slots: usize, policy: PolicyKind) -> ExpertStore {
    let storage = file_storage(IoMode::Direct);
    let files = bank.open(storage.as_ref());
    let options = StoreOptions { slots, verify: Verify::FirstLoad, lookahead: false, policy };
    ExpertStore::new(bank.table.clone(), &files, storage, options).unwrap()
}

#[test]
fn a_replay_has_the_statistics_of_the_store() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 0..12 {
        let mut random = SplitMix64::new(seed);
        let bank = Bank::new(Container::Packed, &[6, 5, 7], seed);
        let slots = 5 + random.below(12) as usize;
        for &policy in PolicyKind::ALL {
            let path = dir.path().join("trace");
            let mut store = store(&bank, slots, policy);
            store.trace_to(&path).unwrap();
            for step in 0..150 {
                let layer = step % 3;
                let mut list = random_list(&mut random, bank.bytes[layer as usize].len(), 1);
                list.truncate(5);
                // Decoding rows, a prompt, or both.
                let rows: Vec<u32> = list.iter().map(|_| random.below(2) as u32).collect();
                let tokens = [0, 1, 2][random.below(3) as usize];
                let prompt = Some(PromptUse { tokens, rows: &rows }).filter(|_| tokens > 0);
                store.start(&Demand { tokens: 2, prompt, ..demand(layer, &list) }).unwrap();
                bank.drain(layer, 3, &mut store, "");
            }
            store.flush_trace().unwrap();
            let trace = Trace::read(&path).unwrap();
            let stats = *store.stats();
            assert_eq!((trace.header.slots as usize, trace.header.layers), (slots, 3));
            assert!(trace.fetches.iter().all(|fetch| fetch.tokens == 2) && !trace.cut_off);
            let got = replay(&trace, slots, &mut *policy.new_policy(slots), 0);
            assert_eq!(
                (got.requests, got.hits, got.evictions),
                (stats.requests, stats.hits, stats.evictions),
                "{policy}, seed {seed}, {slots} slots"
            );
            assert!(optimum(&trace, slots, 0).hits >= stats.hits);
        }
    }
}

#[test]
fn a_trace_that_cannot_be_written_fails_no_demand() {
    let full = std::path::Path::new("/dev/full");
    if !full.exists() {
        return;
    }
    let bank = Bank::new(Container::Packed, &[6, 5], 1);
    let mut store = store(&bank, 4, PolicyKind::Lru);
    // The header is flushed at once.
    let error = store.trace_to(full).unwrap_err().to_string();
    assert!(error.contains("/dev/full"), "{error}");
    bank.check_all(0, &[1, 2], &mut store, "");
}

#[test]
fn slots_come_and_go_and_the_bytes_stay_right() {
    for seed in 0..24 {
        let mut random = SplitMix64::new(seed);
        let bank = Bank::new(Container::ALL[seed as usize % 4], &[6, 5, 7], seed);
        let policy = PolicyKind::ALL[seed as usize % 2];
        let mut store = store(&bank, 1 + random.below(18) as usize, policy);
        for step in 0..120 {
            let context = format!("seed {seed} step {step} {policy}");
            let layer = random.below(3) as u32;
            let list = random_list(&mut random, bank.bytes[layer as usize].len(), 0);
            bank.check_all(layer, &list, &mut store, &context);
            if random.below(4) == 0 {
                let before = store.occupancy();
                let asked = 1 + random.below(20) as usize;
                let slots = store.resize(asked).unwrap();
                assert_eq!((slots, store.slot_count()), (asked.min(18), asked.min(18)), "{context}");
                let Occupancy { free, resident, reading, .. } = store.occupancy();
                assert_eq!((free + resident, reading), (slots, 0), "{context}");
                // Nothing is thrown away that has a place.
                assert_eq!(resident, before.resident.min(slots), "{context}");
            }
        }
        assert!(store.resize(0).is_err());
    }
}

#[test]
fn the_most_recently_used_survive_a_shrinking() {
    let bank = Bank::new(Container::Packed, &[8], 3);
    let mut store = store(&bank, 8, PolicyKind::Lru);
    for expert in [0, 1, 2, 3, 4, 5, 6, 7, 2, 0] {
        bank.check_all(0, &[expert], &mut store, "");
    }
    store.resize(3).unwrap();
    store.reset_stats();
    bank.check_all(0, &[7, 2, 0], &mut store, "");
    assert_eq!((store.stats().hits, store.stats().misses), (3, 0));
    // And their order is still known.
    bank.check_all(0, &[5], &mut store, "");
    store.resize(5).unwrap();
    bank.check_all(0, &[2, 0, 5], &mut store, "");
    assert_eq!((store.stats().hits, store.stats().misses), (6, 1));
}
