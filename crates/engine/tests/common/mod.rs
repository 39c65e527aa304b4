//! Fixtures of the golden tests: tiny checkpoints with logits computed by transformers (`fixtures/make_fixtures.py`).
#![allow(clippy::unwrap_used)] // A test that cannot set itself up should panic.
#![allow(dead_code)] // Each test file uses its own part.

use std::fs;
use std::path::{Path, PathBuf};

use engine::{Engine, EngineError, EngineOptions, Event, Logits, Request, SamplingParams};
use pack::{NoProgress, PackOptions, QuantTiers};
use safetensors::SafeTensors;

/// Directories with a checkpoint and a `golden.safetensors`: the committed ones, and those under the directory named by
/// `FLASH_MOE_FIXTURES`, if set.
pub(crate) fn fixtures() -> Vec<PathBuf> {
    let committed = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let extra = std::env::var_os("FLASH_MOE_FIXTURES").map(PathBuf::from);
    let mut found = Vec::new();
    let families = ["qwen35moe", "dense", "moe"].map(|family| Some(committed.join(family)));
    for root in families.into_iter().chain([extra]).flatten() {
        let entries = fs::read_dir(&root).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
        let dirs = entries.map(|entry| entry.unwrap().path());
        found.extend(dirs.filter(|dir| dir.join("golden.safetensors").exists()));
    }
    found.sort();
    assert!(found.len() >= 11, "fixtures are missing: {found:?}");
    found
}

/// Models with the directory of their goldens: the fixtures themselves, and GGUF files converted from them, the committed
/// ones and those in `FLASH_MOE_FIXTURES`. The file `NAME.gguf`, `NAME-single.gguf` or `NAME-00001-of-0000N.gguf` is made of
/// fixture `NAME`.
pub(crate) fn models() -> Vec<(PathBuf, PathBuf)> {
    let directories = fixtures();
    let extra = std::env::var_os("FLASH_MOE_FIXTURES").map(PathBuf::from);
    let mut found: Vec<_> = directories.iter().map(|dir| (dir.clone(), dir.clone())).collect();
    for root in [Some(gguf("")), extra].into_iter().flatten() {
        for entry in fs::read_dir(&root).unwrap_or_else(|error| panic!("{}: {error}", root.display())) {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            let (name, shard) = name.split_once("-0000").unwrap_or((name, "1"));
            let name = name.strip_suffix("-single").unwrap_or(name);
            let golden = directories.iter().find(|dir| dir.file_name().unwrap() == name);
            if let (Some(golden), true) = (golden, path.extension().is_some_and(|e| e == "gguf")) {
                found.extend(shard.starts_with('1').then(|| (path.clone(), golden.clone())));
            }
        }
    }
    assert!(found.len() >= 18, "GGUF fixtures are missing: {found:?}");
    found
}

/// A committed GGUF file.
pub(crate) fn gguf(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/gguf").join(name)
}

/// A tiny dense checkpoint.
pub(crate) fn dense(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/dense").join(name)
}

/// Packs the model at `source` into the directory `target`.
pub(crate) fn pack(source: &Path, target: &Path, tiers: &QuantTiers) {
    let plan = pack::plan_model(source, tiers, engine::files_inside(source).unwrap()).unwrap();
    pack::pack(&plan, target, &PackOptions::default(), &NoProgress).unwrap();
}

/// A tiny checkpoint of another MoE family.
pub(crate) fn moe(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/moe").join(name)
}

pub(crate) fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/qwen35moe").join(name)
}

/// What transformers computed for one checkpoint.
pub(crate) struct Golden {
    pub(crate) prompt: Vec<u32>,
    /// [T, V], T the length of the prompt
    pub(crate) logits_f32: Vec<f32>,
    /// [T, V]
    pub(crate) logits_f64: Vec<f32>,
    pub(crate) vocab: usize,
    /// 64 ids each.
    pub(crate) greedy_5: Vec<u32>,
    pub(crate) greedy_64: Vec<u32>,
}

impl Golden {
    pub(crate) fn read(dir: &Path) -> Golden {
        let bytes = fs::read(dir.join("golden.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let floats = |name: &str| -> Vec<f32> {
            let data = tensors.tensor(name).unwrap();
            assert_eq!(data.dtype(), safetensors::Dtype::F32, "{name}");
            data.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
        };
        let ids = |name: &str| -> Vec<u32> {
            let data = tensors.tensor(name).unwrap();
            match data.dtype() {
                safetensors::Dtype::I32 => data
                    .data()
                    .chunks_exact(4)
                    .map(|b| i32::from_le_bytes(b.try_into().unwrap()) as u32)
                    .collect(),
                _ => data
                    .data()
                    .chunks_exact(8)
                    .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32)
                    .collect(),
            }
        };
        let vocab = tensors.tensor("logits_f32").unwrap().shape()[1];
        Golden {
            prompt: ids("prompt"),
            logits_f32: floats("logits_f32"),
            logits_f64: floats("logits_f64"),
            vocab,
            greedy_5: ids("greedy_5"),
            greedy_64: ids("greedy_64"),
        }
    }

    pub(crate) fn row_f32(&self, position: usize) -> &[f32] {
        &self.logits_f32[position * self.vocab..][..self.vocab]
    }

    pub(crate) fn row_f64(&self, position: usize) -> &[f32] {
        &self.logits_f64[position * self.vocab..][..self.vocab]
    }
}

/// Options for tests: a fixed budget, so that nothing depends on what else runs on the machine.
pub(crate) fn options() -> EngineOptions {
    EngineOptions {
        memory_bytes: Some(1 << 30),
        ctx: Some(512),
        threads: Some(2),
        ..EngineOptions::default()
    }
}

pub(crate) fn open(dir: &Path, options: EngineOptions) -> Engine {
    Engine::open(dir, options, &mut |_| ()).unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
}

pub(crate) fn argmax(row: &[f32]) -> usize {
    (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap()
}

/// A request for logits and greedy tokens that goes on to `max_tokens`.
pub(crate) fn greedy(engine: &Engine, prompt: &[u32], max_tokens: usize, logits: Logits) -> Request {
    Request {
        max_tokens,
        sampling: SamplingParams::greedy(),
        stop_ids: Vec::new(),
        logits,
        ..engine.request(prompt)
    }
}

/// Runs a request and hands out its rows of logits: position, [V].
pub(crate) fn for_rows(
    engine: &Engine,
    request: Request,
    mut sink: impl FnMut(usize, &[f32]),
) -> Result<Vec<u32>, EngineError> {
    for event in engine.submit(request)? {
        match event? {
            Event::Logits { position, logits } => sink(position, &logits),
            Event::Finished(generation) => return Ok(generation.tokens),
            _ => {}
        }
    }
    Err(EngineError::Closed)
}

/// Logits after the last token of a prompt, of which the engine may know a beginning.
pub(crate) fn last_logits(engine: &Engine, prompt: &[u32]) -> Result<Vec<f32>, EngineError> {
    let mut last = Vec::new();
    for_rows(engine, greedy(engine, prompt, 0, Logits::Last), |_, row| last.extend_from_slice(row))?;
    Ok(last)
}

/// Hands out the logits after each token, fed one by one.
pub(crate) fn stepwise(engine: &Engine, tokens: &[u32], sink: impl FnMut(usize, &[f32])) {
    let forced = tokens[1..].to_vec();
    let request = Request { forced, ..greedy(engine, &tokens[..1], tokens.len(), Logits::Last) };
    for_rows(engine, request, sink).unwrap();
}

/// Bits of the logits at every position, prefilled in chunks, and of a few greedy steps after it.
pub(crate) fn logit_bits(engine: &Engine, prompt: &[u32], steps: usize) -> Vec<u32> {
    let mut bits = Vec::new();
    let sink = |_: usize, row: &[f32]| bits.extend(row.iter().map(|x| x.to_bits()));
    for_rows(engine, greedy(engine, prompt, steps + 1, Logits::All), sink).unwrap();
    bits
}
