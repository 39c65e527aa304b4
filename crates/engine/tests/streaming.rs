//! Streaming never changes the answer: logits are bit-identical for any number of slots, threads, I/O modes and reader
//! threads; and experts are read no more often than promised.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};

use common::{Golden, fixture, for_rows, greedy, last_logits, logit_bits, open, options};
use engine::{
    Engine, EngineOptions, Format, IoEngine, IoMode, KvFormat, Logits, PolicyKind, Request, Verify,
};
use pack::QuantTiers;
use tempfile::TempDir;

fn packed(source: &Path, format: Format) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("packed");
    common::pack(source, &target, &QuantTiers::of(format));
    (dir, target)
}

/// The settings that must not change a bit.
fn variants(k: usize, all: usize) -> Vec<(String, EngineOptions)> {
    let base = || EngineOptions { chunk_tokens: Some(64), slots: Some(all), threads: Some(1), ..options() };
    let mut list = vec![("the reference: one thread, every expert in memory".to_string(), base())];
    for slots in [k, 2 * k, all] {
        for threads in [1, 2] {
            let options = EngineOptions { slots: Some(slots), threads: Some(threads), ..base() };
            list.push((format!("{slots} slots, {threads} threads"), options));
        }
    }
    for (io, io_engine) in [
        (IoMode::Direct, IoEngine::Pread),
        (IoMode::Buffered, IoEngine::Pread),
        (IoMode::Direct, IoEngine::Uring),
        (IoMode::Buffered, IoEngine::Uring),
    ] {
        let io_engine_choice = Some(io_engine);
        let options = EngineOptions { io: Some(io), slots: Some(k), threads: Some(2), ..base() };
        list.push((
            format!("{io:?}, {io_engine:?}"),
            EngineOptions { io_engine: io_engine_choice, ..options },
        ));
    }
    let adaptive = Some(PolicyKind::Adaptive);
    list.push(("adaptive policy".into(), EngineOptions { policy: adaptive, slots: Some(2 * k), ..base() }));
    for lookahead in [true, false] {
        let options =
            EngineOptions { lookahead: Some(lookahead), slots: Some(2 * k), threads: Some(2), ..base() };
        list.push((format!("lookahead {lookahead}"), options));
    }
    let options =
        EngineOptions { io_threads: Some(1), slots: Some(k + 1), verify: Some(Verify::EveryLoad), ..base() };
    list.push(("one reader, each read verified".into(), options));
    list
}

fn check_bit_identical(dir: &Path, prompt: &[u32]) {
    let (k, all) = {
        let engine = open(dir, options());
        (engine.config().per_token_max(), engine.plan().expert_count)
    };
    let mut reference = None;
    for (what, options) in variants(k, all) {
        let bits = logit_bits(&open(dir, options), prompt, 8);
        let expected = reference.get_or_insert_with(|| bits.clone());
        assert!(*expected == bits, "{}: logits differ with {what}", dir.display());
    }
}

#[test]
fn logits_do_not_depend_on_slots_threads_or_io() {
    for name in ["published", "experts512", "blocks256"] {
        let dir = fixture(name);
        check_bit_identical(&dir, &Golden::read(&dir).prompt[..100]);
    }
}

#[test]
fn logits_of_packed_models_do_not_depend_on_slots_threads_or_io() {
    for (name, format) in [("blocks256", Format::Q4K), ("published", Format::Q8_0), ("flat", Format::F32)] {
        let source = fixture(name);
        let (_dir, target) = packed(&source, format);
        check_bit_identical(&target, &Golden::read(&source).prompt[..100]);
    }
}

#[test]
fn logits_with_any_cache_format_do_not_depend_on_slots_or_threads() {
    let dir = fixture("oddheads");
    let prompt = &Golden::read(&dir).prompt[..100];
    let mut bits = Vec::new();
    for kv in KvFormat::ALL {
        let of = |slots, threads| {
            let choice = EngineOptions { kv: Some(*kv), threads: Some(threads), ..options() };
            logit_bits(&open(&dir, EngineOptions { slots, chunk_tokens: Some(64), ..choice }), prompt, 8)
        };
        let expected = of(None, 1);
        assert!(of(Some(5), 2) == expected, "{kv}");
        assert!(!bits.contains(&expected), "{kv} is another format");
        bits.push(expected);
    }
}

#[test]
fn an_unquantised_pack_gives_the_bits_of_its_source() {
    for (name, format) in [("flat", Format::F32), ("published", Format::BF16), ("oddheads", Format::F16)] {
        let source = fixture(name);
        let (_dir, target) = packed(&source, format);
        let prompt = &Golden::read(&source).prompt[..70];
        let bits = |dir: &Path| logit_bits(&open(dir, options()), prompt, 4);
        assert!(bits(&source) == bits(&target), "{name}");
    }
}

#[test]
fn prefill_reads_each_expert_once_per_chunk_and_decode_of_a_resident_model_reads_nothing() {
    let source = fixture("published");
    let (_dir, target) = packed(&source, Format::Q8_0);
    let golden = Golden::read(&source);
    let prompt: Vec<u32> = golden.prompt.iter().chain(&golden.prompt).copied().take(512).collect();
    for slots in [4, 9, 96] {
        let choice =
            EngineOptions { ctx: Some(600), chunk_tokens: Some(512), slots: Some(slots), ..options() };
        let engine = open(&target, choice);
        let (experts, slot_bytes) = (engine.plan().expert_count, engine.plan().slot_bytes);
        let read = || engine.stats().unwrap().expert_bytes_read;
        let before = read();
        last_logits(&engine, &prompt).unwrap();
        let prefill = read() - before;
        assert!(prefill <= experts as u64 * slot_bytes, "{slots} slots: {prefill} bytes for one chunk");
        let before = read();
        let prompt = [&prompt[..], &[0]].concat();
        let request = Request { forced: (1..16).collect(), ..greedy(&engine, &prompt, 16, Logits::None) };
        for_rows(&engine, request, |_, _| ()).unwrap();
        let decode = read() - before;
        match slots == experts {
            true => assert_eq!(decode, 0, "every expert is in memory"),
            false => assert!(decode > 0, "{slots} slots cannot hold {experts} experts"),
        }
    }
}

#[test]
fn a_budget_that_changes_between_tokens_changes_no_bit() {
    let source = fixture("published");
    let (_dir, target) = packed(&source, Format::Q8_0);
    let prompt = &Golden::read(&source).prompt[..60];
    let steps = |engine: &Engine, change: &mut dyn FnMut(&Engine, usize)| {
        let mut bits = Vec::new();
        for end in 20..=prompt.len() {
            change(engine, end);
            bits.extend(last_logits(engine, &prompt[..end]).unwrap().iter().map(|x| x.to_bits()));
        }
        bits
    };
    for policy in PolicyKind::ALL {
        let choice = || EngineOptions { policy: Some(*policy), chunk_tokens: Some(64), ..options() };
        let steady = steps(&open(&target, choice()), &mut |_, _| ());
        let engine = open(&target, choice());
        let k = engine.config().per_token_max();
        let full = engine.plan().total_bytes();
        let (all, slot_bytes) = (engine.plan().slots, engine.plan().slot_bytes);
        let changing = steps(&engine, &mut |engine, token| match token % 8 {
            1 => engine.halve_slots_flag().store(true, std::sync::atomic::Ordering::Relaxed),
            3 => {
                let slots = engine.set_memory_budget(full - (all as u64 - 9) * slot_bytes).unwrap();
                assert_eq!((slots, engine.plan().slots), (9, 9));
            }
            5 => assert_eq!(engine.set_memory_budget(full).unwrap(), all),
            7 => {
                let error = engine.set_memory_budget(full - all as u64 * slot_bytes).unwrap_err();
                assert!(error.to_string().contains("too small"), "{error}");
                assert!(engine.plan().slots >= k);
            }
            _ => (),
        });
        assert!(steady == changing, "{policy}");
    }
}
