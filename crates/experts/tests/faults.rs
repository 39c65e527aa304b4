//! The store on a storage that fails: every fault surfaces as an error that names its place, costs
//! that fetch and nothing else, leaks no slot and hangs nobody.
#![allow(clippy::unwrap_used)]

mod bank;

use std::fs::OpenOptions;
use std::sync::Arc;
use std::time::Duration;

use bank::{Bank, Container, demand, file_storage, no_slot_leaked, random_list, within};
use experts::{ExpertStore, ExpertsError, Failed, Verify};
use storage::{FaultKind, FaultPlan, FaultyStorage, IoMode, SplitMix64, StorageError};

#[test]
fn faults_cost_their_fetch_and_nothing_else() {
    within(Duration::from_secs(200), || {
        let (mut failed, mut whole) = (0, 0);
        for seed in 0..60 {
            let mut random = SplitMix64::new(seed);
            let container = Container::ALL[seed as usize % 4];
            let mode = [IoMode::Direct, IoMode::Buffered][seed as usize / 4 % 2];
            let bank = Bank::new(container, &[1 + random.below(9) as usize, 7, 5], seed);
            let slots = 1 + random.below(bank.expert_count() as u64 + 2) as usize;
            let plan = FaultPlan {
                seed,
                eio_per_mille: random.below(150) as u32,
                short_per_mille: random.below(150) as u32,
                latency_us_max: random.below(300),
                ..Default::default()
            };
            let context = format!("{container:?}, {mode:?}, {slots} slots, {plan:?}");
            let storage = FaultyStorage::new(file_storage(mode), plan).unwrap();
            let mut store = bank.store(storage.clone(), slots, Verify::EveryLoad);
            for _ in 0..40 {
                let layer = random.below(3) as u32;
                let list = random_list(&mut random, bank.bytes[layer as usize].len(), 1);
                // Sometimes the consumer gives up first.
                let give_up_after = if random.below(4) == 0 { random.below(4) } else { u64::MAX };
                let failures = consume(&bank, &mut store, layer, &list, give_up_after, &context);
                failures.iter().for_each(|failed| check_error(failed, layer, &list, &context));
                failed += failures.len();
                whole += usize::from(failures.is_empty());
                no_slot_leaked(&store, false, &context);
                // What is resident, or comes without a fault, is right.
                if random.below(3) == 0 {
                    storage.set_calm(true);
                    bank.check_all(layer, &list, &mut store, &context);
                    no_slot_leaked(&store, false, &context);
                    storage.set_calm(false);
                }
            }
        }
        assert!(failed > 400 && whole > 200, "{failed} failed, {whole} did not");
    });
}

/// Takes a fetch to its end, or until so many experts were given out. What failed.
fn consume(
    bank: &Bank,
    store: &mut ExpertStore,
    layer: u32,
    list: &[u32],
    give_up_after: u64,
    context: &str,
) -> Vec<Failed> {
    store.start(&demand(layer, list)).unwrap();
    let mut given = Vec::new();
    while (given.len() as u64) < give_up_after {
        let Some(loaded) = store.next_batch(1, true).next() else { break };
        bank.check(layer, &loaded, context);
        given.push(loaded.expert);
    }
    let all = !store.is_fetching();
    store.end();
    let failures = store.failures().to_vec();
    // Each expert is given out or fails.
    given.extend(failures.iter().map(|failed| failed.expert));
    let named = given.len();
    given.sort_unstable();
    given.dedup();
    assert!(given.iter().all(|expert| list.contains(expert)), "{context}");
    assert!(named == given.len() && (!all || named == list.len()), "{given:?} of {list:?}: {context}");
    failures
}

fn check_error(failed: &Failed, asked_layer: u32, list: &[u32], context: &str) {
    let error = failed.error.as_ref();
    let ExpertsError::Read { layer, expert, source } = error else { panic!("{error}: {context}") };
    assert!(*layer == asked_layer && list.contains(expert), "{error}: {context}");
    assert_eq!(*expert, failed.expert, "{context}");
    match source {
        StorageError::Read { path, expected, .. } => {
            assert!(path.exists() && *expected > 0, "{error}: {context}");
        }
        StorageError::ShortRead { path, expected, got, .. } => {
            assert!(path.exists() && got < expected, "{error}: {context}");
        }
        other => panic!("{other}: {context}"),
    }
}

#[test]
fn each_read_of_a_fetch_may_be_the_one_that_fails() {
    within(Duration::from_secs(100), || {
        let bank = Bank::new(Container::ApartWithChecksums, &[8], 2);
        let list = [5, 3, 0, 7, 1];
        let mut flips_found = 0;
        for kind in [FaultKind::Eio, FaultKind::Short, FaultKind::FlippedBit] {
            for nth in 0..list.len() as u64 {
                for slots in [1, 2, 5, 8] {
                    let context = format!("{kind:?}, read {nth}, {slots} slots");
                    let fail_nth_demand = Some(nth);
                    let plan = FaultPlan { fail_nth_demand, kind, ..Default::default() };
                    let storage = FaultyStorage::new(file_storage(IoMode::Direct), plan).unwrap();
                    let mut store = bank.store(storage, slots, Verify::FirstLoad);
                    let failures = consume(&bank, &mut store, 0, &list, u64::MAX, &context);
                    no_slot_leaked(&store, false, &context);
                    flips_found += u32::from(kind == FaultKind::FlippedBit && !failures.is_empty());
                    check_nth(&failures, kind, list[nth as usize], &context);
                    bank.check_all(0, &list, &mut store, &context);
                }
            }
        }
        assert!(flips_found >= 10, "{flips_found} of 20 flipped bits found");
    });
}

fn check_nth(failures: &[Failed], kind: FaultKind, fated: u32, context: &str) {
    let Some(failed) = failures.first() else {
        // The bit lay in what was read only to fill the block: `consume` found the expert's bytes
        // right.
        assert_eq!(kind, FaultKind::FlippedBit, "no error: {context}");
        return;
    };
    assert_eq!((failures.len(), failed.expert), (1, fated), "{context}");
    match (failed.error.as_ref(), kind) {
        (ExpertsError::Checksum { layer: 0, expert, .. }, FaultKind::FlippedBit)
        | (ExpertsError::Read { layer: 0, expert, source: StorageError::Read { .. } }, FaultKind::Eio)
        | (
            ExpertsError::Read { layer: 0, expert, source: StorageError::ShortRead { .. } },
            FaultKind::Short,
        ) => {
            assert_eq!(*expert, fated, "{context}");
        }
        (error, _) => panic!("{error}: {context}"),
    }
}

#[test]
fn a_fetch_ended_midway_takes_its_reads_back() {
    within(Duration::from_secs(60), || {
        let bank = Bank::new(Container::Packed, &[9], 2);
        let plan = FaultPlan { seed: 1, latency_us_max: 5_000, ..Default::default() };
        for slots in 1..=9 {
            let storage = FaultyStorage::new(file_storage(IoMode::Direct), plan).unwrap();
            let mut store = bank.store(storage, slots, Verify::FirstLoad);
            for taken in 0..5 {
                let list = [8, 0, 7, 1, 6];
                store.start(&demand(0, &list)).unwrap();
                for _ in 0..taken {
                    let loaded = store.next_batch(1, true).next().unwrap();
                    bank.check(0, &loaded, "");
                }
                store.end();
                no_slot_leaked(&store, false, &format!("{taken} taken, {slots} slots"));
            }
        }
    });
}

#[test]
fn a_model_cut_off_while_in_use_fails_its_fetch() {
    for mode in [IoMode::Direct, IoMode::Buffered] {
        let bank = Bank::new(Container::Packed, &[4], 2);
        let mut store = bank.store(file_storage(mode), 2, Verify::FirstLoad);
        bank.check_all(0, &[0, 3], &mut store, "");
        let last = bank.table.layers[0].extents[2][0];
        let file = OpenOptions::new().write(true).open(&bank.paths[0]).unwrap();
        file.set_len(last.offset + 10).unwrap();
        let failures = consume(&bank, &mut store, 0, &[1, 2], u64::MAX, "");
        let error = failures[0].error.as_ref();
        let ExpertsError::Read { layer: 0, expert: 2, source } = error else { panic!("{error}") };
        let StorageError::ShortRead { path, offset, got: 10, .. } = source else { panic!("{error}") };
        assert_eq!((path, *offset), (&bank.paths[0], last.offset));
        assert!(error.to_string().starts_with("layer 0, expert 2: "), "{error}");
        no_slot_leaked(&store, false, "cut off");
        bank.check_all(0, &[0, 1], &mut store, "");
    }
}

#[test]
fn the_same_bytes_direct_and_buffered() {
    for container in Container::ALL {
        let bank = Bank::new(container, &[5], 2);
        let take = |mode| {
            let mut store = bank.store(file_storage(mode), 3, Verify::FirstLoad);
            store.start(&demand(0, &[4, 3, 2, 1, 0])).unwrap();
            let mut all = vec![Vec::new(); 5];
            while let Some(loaded) = store.next_batch(1, true).next() {
                all[loaded.expert as usize] = loaded.parts.iter().flat_map(|p| p.bytes).copied().collect();
            }
            all
        };
        assert_eq!(take(IoMode::Direct), take(IoMode::Buffered), "{container:?}");
    }
}

#[test]
fn a_storage_that_is_shared_serves_several_stores() {
    within(Duration::from_secs(60), || {
        let bank = Arc::new(Bank::new(Container::Apart, &[6, 6], 2));
        let storage = file_storage(IoMode::Direct);
        let threads: Vec<_> = (0..3)
            .map(|seed| {
                let (bank, storage) = (Arc::clone(&bank), storage.clone());
                std::thread::spawn(move || {
                    let mut random = SplitMix64::new(seed);
                    let mut store = bank.store(storage, 2 + seed as usize, Verify::FirstLoad);
                    for _ in 0..50 {
                        let layer = random.below(2) as u32;
                        let list = random_list(&mut random, 6, 1);
                        bank.check_all(layer, &list, &mut store, "");
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}
