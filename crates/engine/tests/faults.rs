//! Reads that fail in the middle of a generation: the request fails with an error that says what and where, and the next
//! one gives the right answer.
#![allow(clippy::unwrap_used, clippy::result_large_err)]

mod common;

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use common::{Golden, fixture, for_rows, greedy, last_logits, open, options};
use engine::{Engine, EngineOptions, Format, IoEngine, Logits, Request, Verify};
use pack::QuantTiers;
use storage::{FaultKind, FaultPlan, FaultyStorage, FileStorage, StorageOptions};

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

/// Logits after each of the last tokens, which are decoded one by one; `decoding` is called when the prompt is computed.
#[allow(clippy::result_large_err)] // As the API's own.
fn steps_with(
    engine: &Engine,
    prompt: &[u32],
    from: usize,
    decoding: &dyn Fn(),
) -> Result<Vec<u32>, engine::EngineError> {
    let (prompt, forced) = prompt.split_at(from);
    let mut bits = Vec::new();
    let request = greedy(engine, prompt, forced.len() + 1, Logits::Last);
    for_rows(engine, Request { forced: forced.to_vec(), ..request }, |_, row| {
        bits.extend(row.iter().map(|x| x.to_bits()));
        decoding();
    })?;
    Ok(bits)
}

#[allow(clippy::result_large_err)] // As the API's own.
fn steps(engine: &Engine, prompt: &[u32], from: usize) -> Result<Vec<u32>, engine::EngineError> {
    steps_with(engine, prompt, from, &|| ())
}

/// The message of a request that has to fail.
#[track_caller]
fn failure<T, E: std::fmt::Display>(outcome: Result<T, E>, why: &str) -> String {
    match outcome {
        Ok(_) => panic!("the request went well although {why}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_failed_or_short_read_fails_its_request_and_not_the_next() {
    let prompt = &Golden::read(&fixture("published")).prompt[..40];
    let calm = steps(&open_on(&faulty(FaultPlan::default())), prompt, 20).unwrap();
    for kind in [FaultKind::Eio, FaultKind::Short] {
        // One of the demand reads of the decoding: a prefetch might fail without any harm.
        let storage = faulty(FaultPlan { fail_nth_demand: Some(25), kind, ..FaultPlan::default() });
        let engine = open_on(&storage);
        let outcome = steps_with(&engine, prompt, 20, &|| storage.set_calm(false));
        let demanded = storage.demand_reads();
        let error = failure(outcome, &format!("one of {demanded} demand reads failed ({kind:?})"));
        for part in ["model.safetensors-", "offset", "expert", "layer"] {
            assert!(error.contains(part), "{kind:?}: {error}");
        }
        assert!(!error.contains('\n'), "{error}");
        let again = steps(&engine, prompt, 20).unwrap();
        assert!(again == calm, "{kind:?}: the request after a failed one gives other logits");
    }
}

#[test]
fn a_prompt_that_failed_is_computed_again() {
    let prompt = &Golden::read(&fixture("published")).prompt[..40];
    let calm = steps(&open_on(&faulty(FaultPlan::default())), prompt, 40).unwrap();
    let storage = faulty(FaultPlan { fail_nth_demand: Some(7), ..FaultPlan::default() });
    let engine = open_on(&storage);
    assert!(storage.reads() > 0, "dense weights are read through the storage");
    storage.set_calm(false);
    failure(last_logits(&engine, prompt), "a read of its prompt failed");
    let bits: Vec<u32> = last_logits(&engine, prompt).unwrap().iter().map(|x| x.to_bits()).collect();
    assert!(bits == calm);
}

#[test]
fn slow_reads_in_any_order_do_not_change_a_bit() {
    let prompt = &Golden::read(&fixture("published")).prompt[..30];
    let calm = steps(&open_on(&faulty(FaultPlan::default())), prompt, 20).unwrap();
    for seed in 0..4 {
        let storage = faulty(FaultPlan { seed, latency_us_max: 300, ..FaultPlan::default() });
        let bits = steps(&open_on(&storage), prompt, 20).unwrap();
        assert!(bits == calm, "seed {seed}");
    }
}

/// Random schedules; the seed is printed when one goes wrong.
#[test]
fn random_faults_never_give_a_wrong_answer() {
    let prompt = &Golden::read(&fixture("published")).prompt[..24];
    let calm = steps(&open_on(&faulty(FaultPlan::default())), prompt, 16).unwrap();
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
        let engine = open_on(&storage);
        storage.set_calm(false);
        for _ in 0..4 {
            match steps(&engine, prompt, 16) {
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

/// Runs a test that must come to an end.
fn within(limit: Duration, test: impl FnOnce() + Send + 'static) {
    let (done, watch) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        test();
        let _ = done.send(());
    });
    match watch.recv_timeout(limit) {
        Err(RecvTimeoutError::Timeout) => panic!("hangs: not done within {limit:?}"),
        _ => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}

/// A packed model in a directory of its own, its largest file of experts, and that file's contents.
fn packed(dir: &Path) -> (PathBuf, PathBuf, Vec<u8>) {
    let target = dir.join("packed");
    let tiers = QuantTiers::of(Format::Q8_0);
    common::pack(&fixture("published"), &target, &tiers);
    let files = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().path());
    let experts = files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("experts-"));
    let experts = experts.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let contents = fs::read(&experts).unwrap();
    (target, experts, contents)
}

/// Real faults of files in use, with both engines: the request fails with its place, or is right; the next is right.
#[test]
fn files_that_change_while_in_use_fail_requests_and_nothing_else() {
    within(Duration::from_secs(300), || {
        for io_engine in [IoEngine::Pread, IoEngine::Uring] {
            let dir = tempfile::tempdir().unwrap();
            let (target, experts, contents) = packed(dir.path());
            let prompt = &Golden::read(&fixture("published")).prompt[..40];
            let choice = EngineOptions {
                slots: Some(5),
                io_engine: Some(io_engine),
                verify: Some(Verify::EveryLoad),
                ..options()
            };
            let engine = open(&target, choice);
            let calm = steps(&engine, prompt, 20).unwrap();
            let in_place = || OpenOptions::new().write(true).open(&experts).unwrap();
            let write = |bytes: &[u8]| {
                use std::io::Write;
                in_place().write_all(bytes).unwrap();
            };

            in_place().set_len(contents.len() as u64 / 3).unwrap();
            let error = failure(steps(&engine, prompt, 20), "the file was cut off");
            for part in ["experts-", "short read", "layer", "expert", "offset"] {
                assert!(error.contains(part), "{io_engine:?}: {error}");
            }
            write(&contents);
            assert!(steps(&engine, prompt, 20).unwrap() == calm, "{io_engine:?}: whole again");

            // Rewritten in place: other bytes under the same handle, which only the checksum can tell.
            let damaged: Vec<u8> = contents.iter().map(|byte| byte ^ 1).collect();
            write(&damaged);
            let error = failure(steps(&engine, prompt, 20), "the bytes are wrong");
            assert!(error.contains("checksum mismatch"), "{io_engine:?}: {error}");
            write(&contents);
            assert!(steps(&engine, prompt, 20).unwrap() == calm, "{io_engine:?}: repaired");

            // Replaced by another file of the same name, then removed: the handle is still on the old one.
            let other = dir.path().join("other");
            fs::write(&other, &damaged).unwrap();
            fs::rename(&other, &experts).unwrap();
            assert!(steps(&engine, prompt, 20).unwrap() == calm, "{io_engine:?}: replaced");
            fs::remove_file(&experts).unwrap();
            assert!(steps(&engine, prompt, 20).unwrap() == calm, "{io_engine:?}: removed");
        }
    });
}
