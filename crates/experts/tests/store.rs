//! The store without faults: right bytes for any number of slots, and the order, counts and checks
//! it promises. See `faults.rs` for the other half.
#![allow(clippy::unwrap_used)]

mod bank;

use std::sync::Arc;
use std::time::Duration;

use bank::{Bank, Container, demand, file_storage, no_slot_leaked, random_list, within};
use experts::{ExpertId, ExpertStore, ExpertsError, Occupancy, Place, PolicyKind, StoreOptions, Verify};
use storage::{FaultPlan, FaultyStorage, IoMode, SplitMix64, Storage};

fn id(layer: u32, expert: u32) -> ExpertId {
    ExpertId { layer, expert }
}

#[test]
fn any_number_of_slots_gives_the_right_bytes() {
    within(Duration::from_secs(120), || {
        for seed in 0..40 {
            let mut random = SplitMix64::new(seed);
            let container = Container::ALL[seed as usize % 4];
            let mode = [IoMode::Direct, IoMode::Buffered][seed as usize / 4 % 2];
            let bank = Bank::new(container, &[1 + random.below(9) as usize, 0, 6], seed);
            let slots = 1 + random.below(bank.expert_count() as u64 + 2) as usize;
            let context = format!("seed {seed}, {container:?}, {mode:?}, {slots} slots");
            let plan = FaultPlan { seed, latency_us_max: 200, ..Default::default() };
            let storage = FaultyStorage::new(file_storage(mode), plan).unwrap();
            let mut store = bank.store(storage, slots, Verify::EveryLoad);
            for _ in 0..30 {
                let layer = random.below(3) as u32;
                let list = random_list(&mut random, bank.bytes[layer as usize].len(), 0);
                bank.check_all(layer, &list, &mut store, &context);
                no_slot_leaked(&store, false, &context);
            }
        }
    });
}

#[test]
fn hits_misses_and_evictions_are_those_of_a_list() {
    for seed in 0..20 {
        let mut random = SplitMix64::new(seed);
        let bank = Bank::new(Container::Packed, &[6, 5, 7], seed);
        let slots = 4 + random.below(10) as usize;
        let mut store = bank.store(file_storage(IoMode::Direct), slots, Verify::FirstLoad);
        let mut list_lru: Vec<ExpertId> = Vec::new(); // Least recently used first.
        let (mut hits, mut misses, mut evictions) = (0, 0, 0);
        for step in 0..200 {
            let context = format!("seed {seed} step {step} slots {slots}");
            let layer = random.below(3) as u32;
            // Not more than there are slots: then which one goes does not depend on what lands
            // first.
            let mut list = random_list(&mut random, bank.bytes[layer as usize].len(), 1);
            list.truncate(4);
            let ids: Vec<_> = list.iter().map(|expert| id(layer, *expert)).collect();
            let (held, missing): (Vec<_>, Vec<_>) = ids.iter().partition(|i| list_lru.contains(i));
            list_lru.retain(|other| !held.contains(other));
            list_lru.extend(&held);
            for new in &missing {
                if list_lru.len() == slots {
                    list_lru.remove(0);
                    evictions += 1;
                }
                list_lru.push(*new);
            }
            hits += held.len() as u64;
            misses += missing.len() as u64;

            let given = bank.check_all(layer, &list, &mut store, &context);
            let resident_first: Vec<_> =
                (0..list.len()).filter(|index| held.contains(&ids[*index])).collect();
            assert_eq!(given[..held.len()], resident_first, "{context}");
            for layer in 0..3 {
                for expert in 0..bank.bytes[layer].len() {
                    let id = id(layer as u32, expert as u32);
                    let is_resident = matches!(store.place(id), Some(Place::Host(_)));
                    assert_eq!(is_resident, list_lru.contains(&id), "{context} {id:?}");
                }
            }
            let stats = *store.stats();
            assert_eq!((stats.hits, stats.misses), (hits, misses), "{context}");
            assert_eq!((stats.requests, stats.evictions), (hits + misses, evictions), "{context}");
        }
    }
}

#[test]
fn bytes_read_are_those_of_the_drive() {
    for container in Container::ALL {
        let bank = Bank::new(container, &[8], 3);
        let storage = file_storage(IoMode::Direct);
        let mut store = bank.store(storage.clone(), 3, Verify::FirstLoad);
        for list in [vec![0, 1, 2], vec![1, 2], vec![7, 6, 5, 4, 3, 2, 1, 0]] {
            bank.check_all(0, &list, &mut store, "");
        }
        assert!(store.stats().bytes_read > 0);
        assert_eq!(store.stats().bytes_read, storage.bytes_read(), "{container:?}");
        store.reset_stats();
        assert_eq!(store.stats().bytes_read, 0);
        assert_eq!(store.stats().hit_rate(), 0.0);
    }
}

#[test]
fn everything_fits_and_nothing_is_read_twice() {
    let bank = Bank::new(Container::Apart, &[4, 4], 9);
    let storage = file_storage(IoMode::Direct);
    let mut store = bank.store(storage.clone(), 1000, Verify::FirstLoad);
    assert_eq!((store.slot_count(), store.expert_count()), (8, 8));
    assert_eq!((store.layer_expert_count(1), store.layer_expert_count(2)), (4, 0));
    for round in 0..3 {
        for layer in 0..2 {
            let given = bank.check_all(layer, &[3, 1, 2, 0], &mut store, "");
            assert!(round == 0 || given == [0, 1, 2, 3]);
        }
    }
    let stats = *store.stats();
    assert_eq!((stats.misses, stats.hits, stats.evictions), (8, 16, 0));
    let once = storage.bytes_read();
    bank.check_all(0, &[0], &mut store, "");
    assert_eq!(storage.bytes_read(), once);
}

#[test]
fn resident_experts_are_given_while_others_are_still_read() {
    let bank = Bank::new(Container::Packed, &[6], 4);
    let plan = FaultPlan { seed: 1, latency_us_max: 400_000, ..Default::default() };
    let storage = FaultyStorage::new(file_storage(IoMode::Direct), plan).unwrap();
    let mut store = bank.store(storage, 6, Verify::FirstLoad);
    bank.check_all(0, &[4, 5], &mut store, "");
    let waited_us = store.stats().read_wait_us;
    assert!(waited_us > 0);
    store.start(&demand(0, &[0, 4, 1, 5])).unwrap();
    assert_eq!(store.resident_left(), 2);
    let first: Vec<u32> = store.next_batch(1, false).map(|loaded| loaded.expert).collect();
    let second: Vec<u32> = store.next_batch(9, false).map(|loaded| loaded.expert).collect();
    assert_eq!((first, second, store.resident_left()), (vec![4], vec![5], 0));
    // The others are most likely not there yet, which is no end of the fetch.
    assert!(store.next_batch(9, false).len() + usize::from(store.is_fetching()) > 0);
    // Ending it waits for them.
    store.end();
    let place = |expert| store.place(id(0, expert));
    assert!(matches!((place(0), place(1)), (Some(Place::Host(_)), Some(Place::Host(_)))));
    assert_eq!((store.place(id(0, 6)), store.place(id(1, 0))), (None, None));
    assert!(store.stats().read_wait_us > waited_us);
}

#[test]
fn lists_that_make_no_sense_are_refused() {
    let bank = Bank::new(Container::Packed, &[3, 5], 4);
    let mut store = bank.store(file_storage(IoMode::Direct), 2, Verify::FirstLoad);
    let error = store.start(&demand(0, &[2, 0, 2])).err().unwrap();
    assert!(matches!(error, ExpertsError::Duplicate { layer: 0, expert: 2 }), "{error}");
    let error = store.start(&demand(0, &[1, 3])).err().unwrap();
    assert!(matches!(error, ExpertsError::NoSuchExpert { expert: 3, experts: 3, .. }), "{error}");
    let error = store.start(&demand(2, &[])).err().unwrap();
    assert!(matches!(error, ExpertsError::NoSuchLayer { layer: 2, layers: 2 }), "{error}");
    bank.check_all(1, &[], &mut store, "");
    // And were not counted or remembered.
    assert_eq!((store.stats().requests, store.occupancy().free), (0, 2));
    bank.check_all(1, &[2, 0, 3, 4], &mut store, "");
}

#[test]
fn a_fetch_that_was_not_ended_is_ended_by_the_next_one() {
    within(Duration::from_secs(60), || {
        let bank = Bank::new(Container::Packed, &[6], 4);
        let mut store = bank.store(file_storage(IoMode::Direct), 3, Verify::FirstLoad);
        for given in 0..5 {
            store.start(&demand(0, &[0, 1, 2, 3, 4])).unwrap();
            (0..given).for_each(|_| assert_eq!(store.next_batch(1, true).len(), 1));
            bank.check_all(0, &[5, 0, 3], &mut store, "");
            assert_eq!(
                store.occupancy(),
                Occupancy { free: 0, resident: 3, reading: 0, ..Default::default() }
            );
        }
    });
}

#[test]
fn a_damaged_record_is_found_on_its_first_load() {
    for container in [Container::Packed, Container::ApartWithChecksums] {
        let bank = Bank::new(container, &[2, 4], 8);
        let storage = file_storage(IoMode::Direct);
        let mut store = bank.store(storage, 6, Verify::FirstLoad);
        bank.damage(1, 2);
        store.start(&demand(1, &[0, 2, 3])).unwrap();
        let mut given = bank.drain(1, 2, &mut store, "");
        given.sort_unstable();
        assert_eq!(given, [0, 3], "the others are not affected");
        assert_eq!((store.failures().len(), store.failures()[0].expert), (1, 2));
        let error = Arc::clone(&store.failures()[0].error);
        let extent = bank.table.layers[1].extents[2][0];
        match error.as_ref() {
            ExpertsError::Checksum { layer: 1, expert: 2, path, offset, expected, got } => {
                assert_eq!((path, *offset), (&bank.paths[extent.file as usize], extent.offset));
                assert_ne!(expected, got);
            }
            other => panic!("{other}"),
        }
        let message = error.to_string();
        let place = format!("a.bin: layer 1, expert 2 at offset {}", extent.offset);
        assert!(message.contains(&place), "{message}");
        // Repaired, the expert is read.
        assert_eq!(store.occupancy().free, 4);
        bank.check_all(1, &[0, 1, 3], &mut store, "");
        bank.damage(1, 2);
        bank.check_all(1, &[2], &mut store, "");
        assert_eq!(store.stats().verifications, 5);
    }
}

#[test]
fn checksums_are_compared_once_or_always() {
    let bank = Bank::new(Container::Packed, &[2], 8);
    for (verify, verifications) in [(Verify::FirstLoad, 2), (Verify::EveryLoad, 6)] {
        let mut store = bank.store(file_storage(IoMode::Direct), 1, verify);
        for _ in 0..3 {
            // One slot: each is read again each time.
            bank.check_all(0, &[0], &mut store, "");
            bank.check_all(0, &[1], &mut store, "");
        }
        assert_eq!((store.stats().misses, store.stats().verifications), (6, verifications));
    }
    // Damage that comes after the first load is what EveryLoad is for.
    let mut store = bank.store(file_storage(IoMode::Direct), 1, Verify::EveryLoad);
    bank.check_all(0, &[0], &mut store, "");
    bank.check_all(0, &[1], &mut store, "");
    bank.damage(0, 0);
    store.start(&demand(0, &[0])).unwrap();
    assert!(store.next_batch(1, true).is_empty() && store.failures()[0].expert == 0);
}

#[test]
fn slots_are_as_large_as_the_largest_expert() {
    let bank = Bank::new(Container::Apart, &[3, 3, 3], 5);
    let slot_bytes = ExpertStore::slot_bytes(&bank.table, 4096).unwrap();
    let most =
        bank.table.layers.iter().flat_map(|layer| &layer.extents).map(|extents| {
            extents.iter().map(|extent| extent.bytes.next_multiple_of(4096) + 4096).sum::<u64>()
        });
    assert!(slot_bytes.is_multiple_of(4096) && slot_bytes as u64 <= most.max().unwrap());
    let store = bank.store(file_storage(IoMode::Direct), 5, Verify::FirstLoad);
    assert_eq!(store.memory_bytes(), 5 * slot_bytes);
}

/// What is wrong with a table, and what must be in the message.
fn refused(change: impl FnOnce(&mut Bank), expected: &str) {
    let mut bank = Bank::new(Container::Fused, &[2, 3], 6);
    change(&mut bank);
    let storage = file_storage(IoMode::Direct);
    let files = bank.open(storage.as_ref());
    let options =
        StoreOptions { slots: 2, verify: Verify::FirstLoad, lookahead: true, policy: PolicyKind::Lru };
    match ExpertStore::new(bank.table, &files, storage, options) {
        Ok(_) => panic!("accepted; expected {expected}"),
        Err(error) => {
            let message = error.to_string();
            assert!(message.contains(expected), "{message}\nexpected {expected}");
            assert!(!message.contains('\n') && !message.ends_with('.'), "{message}");
        }
    }
}

#[test]
fn tables_that_do_not_fit_their_files_are_refused() {
    let cut = |bank: &mut Bank| {
        let path = &bank.paths[1];
        let bytes = path.metadata().unwrap().len();
        std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(bytes - 1).unwrap();
    };
    refused(cut, "b.bin: layer 1, expert 2 needs ");
    refused(|bank| bank.table.layers[0].extents[1][0].file = 2, "expert 1 lies in file number 2");
    refused(|bank| bank.table.layers[0].extents[0][1].offset = u64::MAX, "too large to address");
    refused(|bank| bank.table.layers[0].extents[0][1].offset = 1 << 50, "the file has 0 there");
    refused(|bank| bank.table.layers[1].extents[2][0].bytes -= 1, "layer 1, expert 2: its up matrix");
    refused(|bank| bank.table.layers[1].extents[2].truncate(1), "expert 2: its down matrix");
    refused(|bank| bank.table.layers[1].parts[1].offset = u64::MAX, "its up matrix");
    refused(|bank| bank.table.layers[1].parts[0].extent = 9, "of extent 9, which has 0");
    refused(|bank| bank.table.layers[1].parts[2].rows += 1, "its down matrix");
    refused(|bank| bank.table.layers[1].parts[2].rows = usize::MAX, "too large to address");
    refused(|bank| bank.table.layers[0].parts[2].cols = 33, "layer 0: the experts' down matrix");
    refused(|bank| bank.table.layers[1].checksums = Some(vec![0]), "has 1 checksums for 3 experts");
}

#[test]
fn no_slots_are_an_error() {
    let bank = Bank::new(Container::Packed, &[2], 6);
    let storage = file_storage(IoMode::Direct);
    let files = bank.open(storage.as_ref());
    let options =
        StoreOptions { slots: 0, verify: Verify::FirstLoad, lookahead: true, policy: PolicyKind::Lru };
    let made = ExpertStore::new(bank.table.clone(), &files, storage, options);
    assert!(matches!(made, Err(ExpertsError::NoSlots)));
}

#[test]
fn a_model_without_experts_has_an_empty_store() {
    let bank = Bank::new(Container::Packed, &[0, 0], 6);
    let mut store = bank.store(file_storage(IoMode::Direct), 4, Verify::FirstLoad);
    assert_eq!(store.expert_count(), 0);
    bank.check_all(1, &[], &mut store, "");
}
