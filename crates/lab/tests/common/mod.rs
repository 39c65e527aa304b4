//! The committed tiny checkpoints, and options under which nothing depends on what else runs on the machine.
#![allow(clippy::unwrap_used)] // A test that cannot set itself up should panic.
#![allow(dead_code)] // Each test file uses its own part.

use std::path::{Path, PathBuf};

use engine::{Engine, EngineOptions};
use pack::{NoProgress, PackOptions, QuantTiers};

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// A tiny checkpoint with experts.
pub(crate) fn fixture(name: &str) -> PathBuf {
    fixtures().join("qwen35moe").join(name)
}

/// A tiny dense checkpoint.
pub(crate) fn dense(name: &str) -> PathBuf {
    fixtures().join("dense").join(name)
}

/// A tiny checkpoint of another MoE family.
pub(crate) fn moe(name: &str) -> PathBuf {
    fixtures().join("moe").join(name)
}

/// A GGUF file.
pub(crate) fn gguf(name: &str) -> PathBuf {
    fixtures().join("gguf").join(name)
}

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

/// Packs the model at `source` into the directory `target`.
pub(crate) fn pack(source: &Path, target: &Path, tiers: &QuantTiers) {
    let plan = pack::plan_model(source, tiers, engine::files_inside(source).unwrap()).unwrap();
    pack::pack(&plan, target, &PackOptions::default(), &NoProgress).unwrap();
}
