//! Synthetic models: they open, verify, repeat by seed, share files, stay finite, and their routers spread.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/routing.rs"]
mod routing;

use std::fs;
use std::path::{Path, PathBuf};

use checkpoint::Checkpoint;
use engine::synth::{Preset, Synthetic};
use engine::{Engine, EngineOptions, Event, Format, Logits, Request};
use pack::synth::{SynthChoice, SynthError, SynthOptions, plan_synth, sizes, synth};
use pack::{NoProgress, PackError};
use tempfile::TempDir;

fn choice(name: &str, quant: Format, skew: f32) -> SynthChoice {
    let preset = Preset::find(name).unwrap();
    SynthChoice { preset, tiers: preset.tiers(quant), seed: 7, skew, layers: None }
}

fn write(choice: &SynthChoice, options: &SynthOptions) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("model");
    synth(&plan_synth(choice).unwrap(), &target, options, &NoProgress).unwrap();
    (dir, target)
}

fn with_disk(bytes: u64) -> SynthOptions {
    let mut options = SynthOptions::default();
    options.disk_bytes = Some(bytes);
    options
}

fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let mut all: Vec<_> =
        entries.map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap())).collect();
    all.sort();
    all
}

fn logits(dir: &Path) -> Vec<f32> {
    let options = EngineOptions { memory_bytes: Some(1 << 30), ctx: Some(64), ..EngineOptions::default() };
    let engine = Engine::open(dir, options, &mut |_| ()).unwrap();
    let request = Request { max_tokens: 0, logits: Logits::Last, ..engine.request(vec![1, 2, 3]) };
    let events = engine.submit(request).unwrap().map(Result::unwrap);
    let logits = events.filter_map(|event| match event {
        Event::Logits { logits, .. } => Some(logits),
        _ => None,
    });
    logits.last().unwrap()
}

#[test]
fn opens_verifies_and_gives_finite_logits_in_every_tier() {
    for quant in [Format::Q4K, Format::Q3K, Format::Q8_0, Format::BF16] {
        for skew in [0.0, 1.0] {
            let (_dir, target) = write(&choice("tiny", quant, skew), &SynthOptions::default());
            let report = pack::verify(&target, &NoProgress).unwrap();
            assert!(report.is_ok(), "{:?}", report.bad.first());
            let opened = Checkpoint::open(&target).unwrap();
            assert!(!opened.packed().unwrap().shared_record_files());
            let found = Synthetic::of(&opened).unwrap();
            assert_eq!((found.preset.as_str(), found.seed, found.skew as f32), ("tiny", 7, skew));
            let logits = logits(&target);
            let rms = (logits.iter().map(|x| x * x).sum::<f32>() / logits.len() as f32).sqrt();
            assert!((0.2..5.0).contains(&rms), "{quant} skew {skew}: {rms}");
        }
    }
}

#[test]
fn bytes_follow_from_the_seed_and_not_from_the_threads() {
    let base = choice("tiny", Format::Q4K, 1.0);
    let (_first, first) = write(&base, &SynthOptions::default());
    for threads in [1, 5] {
        let mut options = SynthOptions::default();
        options.threads = threads;
        let (_other, other) = write(&base, &options);
        assert!(contents(&first) == contents(&other), "{threads} threads");
    }
    let (_other, other) = write(&SynthChoice { seed: 8, ..base }, &SynthOptions::default());
    for ((name, a), (_, b)) in contents(&first).iter().zip(&contents(&other)) {
        assert_ne!(a, b, "{name}");
    }
}

#[test]
fn layers_share_record_files_where_the_disk_is_smaller() {
    let tiny = choice("tiny", Format::Q4K, 0.0);
    let sizes = sizes(&plan_synth(&tiny).unwrap(), &SynthOptions::default()).unwrap();
    let (_dir, target) = write(&tiny, &with_disk(sizes.bytes - sizes.expert_bytes / 3));
    let opened = Checkpoint::open(&target).unwrap();
    let packed = opened.packed().unwrap();
    assert!(packed.shared_record_files() && packed.sharing_factor() == 2.0);
    assert_eq!(opened.files().len(), 3);
    assert!(opened.manifest().unwrap().description.contains("share 2 record files"));
    assert!(pack::verify(&target, &NoProgress).unwrap().is_ok());
    assert!(logits(&target).iter().all(|x| x.is_finite()));
    let used: u64 = contents(&target).iter().map(|(_, bytes)| bytes.len() as u64).sum();
    assert!(used <= sizes.bytes - sizes.expert_bytes / 3);
}

#[test]
fn routers_spread_without_skew_and_repeat_with_it() {
    let tokens = routing::random_tokens(3, 600, 1024);
    let found = |skew| {
        let (_dir, target) = write(&choice("tiny", Format::Q4K, skew), &SynthOptions::default());
        routing::record(&target, &tokens)
    };
    let (uniform, skewed) = (found(0.0), found(1.0));
    assert!(uniform.entropy() > 0.95, "{}", uniform.entropy());
    // Chance is 4 of 32.
    assert!(uniform.repeated() < 0.16, "{}", uniform.repeated());
    assert!(skewed.repeated() > 0.25, "{}", skewed.repeated());
    let hits = |routing: &routing::Routing| routing.lru(routing.layers * routing.experts / 4, 64);
    assert!((0.2..0.32).contains(&hits(&uniform)), "{}", hits(&uniform));
    assert!(hits(&skewed) > hits(&uniform) + 0.15, "{} {}", hits(&skewed), hits(&uniform));
}

#[test]
fn presets_have_the_sizes_of_the_models() {
    for (name, quant, total, dense_max) in [
        ("qwen3.5-35b-a3b", Format::Q4K, 34_661_000_000u64, 2_100_000_000),
        ("qwen3.5-122b-a10b", Format::Q4K, 122_112_000_000, 5_200_000_000),
        ("qwen3.5-397b-a17b", Format::Q4K, 396_346_000_000, 6_000_000_000),
        ("qwen3.5-397b-a17b", Format::Q3K, 396_346_000_000, 6_000_000_000),
    ] {
        let choice = choice(name, quant, 0.0);
        let plan = plan_synth(&choice).unwrap();
        let dense: u64 = plan.dense.iter().map(|t| t.shape.iter().product::<usize>() as u64).sum();
        let layer = |l: &pack::synth::SynthLayer| {
            l.experts * l.parts.iter().map(|part| part.rows * part.cols).sum::<usize>()
        };
        let all = dense + plan.layers.iter().map(layer).sum::<usize>() as u64;
        assert!(all.abs_diff(total) < total / 10_000, "{name}: {all} weights");
        let sizes = sizes(&plan_synth(&choice).unwrap(), &SynthOptions::default()).unwrap();
        assert!(sizes.dense_bytes <= dense_max, "{name}: {} dense bytes", sizes.dense_bytes);
    }
}

#[test]
fn refuses_targets_disks_and_limits_that_do_not_do() {
    let tiny = choice("tiny", Format::Q4K, 0.0);
    let plan = plan_synth(&tiny).unwrap();
    let refused =
        |target: &Path, options: &SynthOptions| synth(&plan, target, options, &NoProgress).unwrap_err();
    let (dir, target) = write(&tiny, &SynthOptions::default());
    let before = contents(&target);
    let error = refused(&target, &SynthOptions::default());
    assert!(matches!(error, SynthError::Write(PackError::TargetNotEmpty { .. })), "{error}");
    assert!(contents(&target) == before);
    let target = dir.path().join("other");
    let SynthError::DiskLimit { needed, .. } = refused(&target, &with_disk(1 << 20)) else { panic!() };
    assert!(!target.exists());
    let mut options = SynthOptions::default();
    options.free_bytes = Some(1 << 20);
    let error = refused(&target, &options);
    assert!(matches!(error, SynthError::Write(PackError::NoSpace { .. })), "{error}");
    assert!(!target.exists());
    // What the message names is enough.
    synth(&plan_synth(&tiny).unwrap(), &target, &with_disk(needed), &NoProgress).unwrap();
    assert_eq!(Checkpoint::open(&target).unwrap().files().len(), 2);
}

#[test]
fn an_interrupted_model_says_so_and_is_begun_again() {
    let tiny = choice("tiny", Format::Q4K, 0.0);
    let (_dir, whole) = write(&tiny, &SynthOptions::default());
    // As a kill leaves it: the journal's head and part of the files. Only a failing write shows the journal, so a
    // progress that panics stands for the kill.
    struct Kill;
    impl pack::PackProgress for Kill {
        fn advance(&self, _: u64) {
            panic!("killed by the test");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("model");
    let mut options = SynthOptions::default();
    options.command = Some("flash-moe synth tiny somewhere".into());
    let killed =
        std::panic::catch_unwind(|| synth(&plan_synth(&tiny).unwrap(), &target, &options, &Kill).is_ok());
    assert!(killed.is_err());
    let error = Checkpoint::open(&target).unwrap_err().to_string();
    assert!(error.contains("flash-moe synth tiny somewhere"), "{error}");
    let other = SynthChoice { seed: 9, ..tiny };
    assert!(synth(&plan_synth(&other).unwrap(), &target, &SynthOptions::default(), &NoProgress).is_err());
    synth(&plan_synth(&tiny).unwrap(), &target, &SynthOptions::default(), &NoProgress).unwrap();
    assert!(contents(&target) == contents(&whole));
}
