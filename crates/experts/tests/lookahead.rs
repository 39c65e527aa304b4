//! Guesses read ahead, right and wrong, landed and not, with faults and few slots: every fetch
//! still gives the right bytes, no slot leaks, nothing hangs.
#![allow(clippy::unwrap_used)]

mod bank;

use std::thread;
use std::time::Duration;

use bank::{Bank, Container, demand, file_storage, hint, no_slot_leaked, random_list, within};
use experts::{ExpertsError, Occupancy, Phase, Verify};
use storage::{FaultPlan, FaultyStorage, IoMode, SplitMix64};

#[test]
fn guesses_change_no_answer_and_leak_no_slot() {
    within(Duration::from_secs(200), || {
        let (mut reads, mut used) = (0, 0);
        for seed in 0..40 {
            let mut random = SplitMix64::new(seed);
            let bank = Bank::new(Container::ALL[seed as usize % 4], &[9, 7, 8], seed);
            let slots = 1 + random.below(bank.expert_count() as u64) as usize;
            let plan = FaultPlan {
                seed,
                eio_per_mille: if seed % 3 == 0 { 50 } else { 0 },
                latency_us_max: random.below(400),
                ..Default::default()
            };
            let context = format!("seed {seed}, {slots} slots, {plan:?}");
            let storage = FaultyStorage::new(file_storage(IoMode::Direct), plan).unwrap();
            let mut store = bank.store(storage.clone(), slots, Verify::EveryLoad);
            for step in 0..120u32 {
                let layer = step % 3;
                let count = bank.bytes[layer as usize].len();
                let list = random_list(&mut random, count.min(4), 1);
                // Often right, sometimes not, sometimes for a layer that does not come next.
                let guess =
                    if random.below(3) > 0 { list.clone() } else { random_list(&mut random, count, 1) };
                let guessed = if random.below(10) == 0 { (layer + 1) % 3 } else { layer };
                let guess: Vec<u32> = guess.into_iter().filter(|expert| *expert < 7).collect();
                hint(&mut store, guessed, Phase::Decode, &guess).unwrap();
                // While a layer's experts are fetched, those of the next are guessed.
                let next = random_list(&mut random, bank.bytes[((layer + 1) % 3) as usize].len(), 1);
                let (early, phase) =
                    (random.below(2) == 0, [Phase::Decode, Phase::Prefill][random.below(2) as usize]);
                store.start(&demand(layer, &list)).unwrap();
                if early {
                    hint(&mut store, (layer + 1) % 3, phase, &next).unwrap();
                }
                let given = bank.drain(layer, 1 + random.below(4) as usize, &mut store, &context);
                store.end();
                assert_eq!(given.len() + store.failures().len(), list.len(), "{context}");
                assert!(seed % 3 == 0 || store.failures().is_empty(), "{context}");
                no_slot_leaked(&store, true, &context);
            }
            storage.set_calm(true);
            // A guess still being read may fail yet, and the fetch that joins it with it.
            while store.occupancy().reading > 0 {
                store.start(&demand(0, &[])).unwrap();
            }
            for layer in 0..3 {
                let list: Vec<u32> = (0..bank.bytes[layer as usize].len() as u32).collect();
                bank.check_all(layer, &list, &mut store, &context);
            }
            reads += store.lookahead_stats().reads;
            used += store.lookahead_stats().reads_used;
        }
        assert!(reads > 600 && used > 200, "{reads} read ahead, {used} used");
    });
}

#[test]
fn guesses_that_make_no_sense_are_refused() {
    let bank = Bank::new(Container::Packed, &[4, 4], 1);
    let mut store = bank.store(file_storage(IoMode::Direct), 3, Verify::FirstLoad);
    assert!(hint(&mut store, 2, Phase::Decode, &[0]).is_err());
    assert!(hint(&mut store, 0, Phase::Decode, &[4]).is_err());
    assert!(hint(&mut store, 0, Phase::Decode, &[1, 1]).is_err());
}

#[test]
fn a_damaged_expert_that_was_read_ahead_fails_the_fetch_that_asks_for_it() {
    let bank = Bank::new(Container::Packed, &[4, 4], 1);
    bank.damage(0, 2);
    let mut store = bank.store(file_storage(IoMode::Direct), 5, Verify::FirstLoad);
    hint(&mut store, 0, Phase::Decode, &[2]).unwrap();
    thread::sleep(Duration::from_millis(50)); // It has most likely landed; the outcome is the same if not.
    store.start(&demand(0, &[1, 2])).unwrap();
    assert_eq!(bank.drain(0, 2, &mut store, ""), [1]);
    store.end();
    let error = &store.failures()[0].error;
    assert!(matches!(**error, ExpertsError::Checksum { layer: 0, expert: 2, .. }), "{error}");
    let Occupancy { free, resident, reading, .. } = store.occupancy();
    assert_eq!((free, resident, reading), (4, 1, 0));
    bank.check_all(0, &[0, 1, 3], &mut store, "after the damage");
}

/// Its slot is copied to another one while its checksum has not been compared.
#[test]
fn a_damaged_expert_that_was_prefetched_is_found_after_the_slots_have_changed() {
    let bank = Bank::new(Container::Packed, &[4, 4], 1);
    bank.damage(0, 2);
    let mut store = bank.store(file_storage(IoMode::Direct), 7, Verify::FirstLoad);
    bank.check_all(1, &[0, 1, 2, 3], &mut store, "");
    bank.check_all(0, &[0, 1], &mut store, "");
    hint(&mut store, 0, Phase::Decode, &[2]).unwrap();
    store.resize(4).unwrap();
    store.start(&demand(0, &[2])).unwrap();
    assert!(bank.drain(0, 1, &mut store, "").is_empty());
    let error = &store.failures()[0].error;
    assert!(matches!(**error, ExpertsError::Checksum { layer: 0, expert: 2, .. }), "{error}");
}
