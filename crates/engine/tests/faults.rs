//! Reads that fail in the middle of a generation: the request fails with an error that says what and where, and the next
//! one gives the right answer.

mod common;

use std::sync::Arc;

use common::{Golden, fixture, open, options};
use engine::{Engine, EngineOptions};
use storage::{FaultKind, FaultPlan, FaultyStorage, FileStorage, IoMode, StorageOptions};

fn faulty(plan: FaultPlan) -> Arc<FaultyStorage> {
    let real = FileStorage::new(StorageOptions { threads: 4, ..Default::default() }).unwrap();
    let storage = FaultyStorage::new(real, plan).unwrap();
    storage.set_calm(true);
    storage
}

/// Few slots, so that decoding reads.
fn open_on(storage: &Arc<FaultyStorage>) -> Engine {
    let choice = EngineOptions { storage: Some(storage.clone()), slots: Some(5), ..options() };
    open(&fixture("published"), choice)
}

/// Logits after each of the last tokens, stepped one by one.
fn steps(engine: &mut Engine, prompt: &[u32], from: usize) -> Result<Vec<u32>, engine::EngineError> {
    let mut session = engine.session()?;
    let mut bits = Vec::new();
    for end in from..=prompt.len() {
        engine.sync(&mut session, &prompt[..end], &mut |_, _| ())?;
        bits.extend(session.logits().iter().map(|x| x.to_bits()));
    }
    Ok(bits)
}

#[test]
fn a_failed_or_short_read_fails_its_request_and_not_the_next() {
    let prompt = &Golden::read(&fixture("published")).prompt[..40];
    let calm = steps(&mut open_on(&faulty(FaultPlan::default())), prompt, 20).unwrap();
    for kind in [FaultKind::Eio, FaultKind::Short] {
        // The request that fails is somewhere in the decoding.
        let storage = faulty(FaultPlan { fail_nth_read: Some(400), kind, ..FaultPlan::default() });
        let mut engine = open_on(&storage);
        storage.set_calm(false);
        let error = steps(&mut engine, prompt, 20).expect_err("a read failed").to_string();
        assert!(storage.reads() > 400, "the fault was met");
        for part in ["model.safetensors-", "offset", "expert", "layer"] {
            assert!(error.contains(part), "{kind:?}: {error}");
        }
        assert!(!error.contains('\n'), "{error}");
        let again = steps(&mut engine, prompt, 20).unwrap();
        assert!(again == calm, "{kind:?}: the request after a failed one gives other logits");
    }
}

#[test]
fn a_session_that_failed_rebuilds_itself() {
    let prompt = &Golden::read(&fixture("published")).prompt[..40];
    let calm = steps(&mut open_on(&faulty(FaultPlan::default())), prompt, 40).unwrap();
    let storage = faulty(FaultPlan { fail_nth_read: Some(0), ..FaultPlan::default() });
    let mut engine = open_on(&storage);
    let reads = storage.reads();
    assert!(reads > 0, "dense weights are read through the storage");
    drop(engine);
    let storage = faulty(FaultPlan { fail_nth_read: Some(reads + 7), ..FaultPlan::default() });
    engine = open_on(&storage);
    storage.set_calm(false);
    let mut session = engine.session().unwrap();
    engine.sync(&mut session, prompt, &mut |_, _| ()).expect_err("a read failed");
    engine.sync(&mut session, prompt, &mut |_, _| ()).unwrap();
    let bits: Vec<u32> = session.logits().iter().map(|x| x.to_bits()).collect();
    assert!(bits == calm);
}

#[test]
fn slow_reads_in_any_order_do_not_change_a_bit() {
    let prompt = &Golden::read(&fixture("published")).prompt[..30];
    let calm = steps(&mut open_on(&faulty(FaultPlan::default())), prompt, 20).unwrap();
    for seed in 0..4 {
        let storage = faulty(FaultPlan { seed, latency_us_max: 300, ..FaultPlan::default() });
        let bits = steps(&mut open_on(&storage), prompt, 20).unwrap();
        assert!(bits == calm, "seed {seed}");
    }
}

/// Random schedules; the seed is printed when one goes wrong.
#[test]
fn random_faults_never_give_a_wrong_answer() {
    let prompt = &Golden::read(&fixture("published")).prompt[..24];
    let calm = steps(&mut open_on(&faulty(FaultPlan::default())), prompt, 16).unwrap();
    let (mut failed, mut passed) = (0, 0);
    for seed in 0..8 {
        let plan = FaultPlan {
            seed,
            eio_per_mille: 1,
            short_per_mille: 1,
            latency_us_max: 20,
            ..FaultPlan::default()
        };
        let storage = faulty(plan);
        let mut engine = open_on(&storage);
        storage.set_calm(false);
        for _ in 0..4 {
            match steps(&mut engine, prompt, 16) {
                Ok(bits) => {
                    assert!(bits == calm, "seed {seed}: wrong logits and no error");
                    passed += 1;
                }
                Err(_) => failed += 1,
            }
        }
    }
    assert!(failed > 0 && passed > 0, "{failed} failed, {passed} passed: the rates test nothing");
}
