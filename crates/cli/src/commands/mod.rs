//! One file per command.

pub(crate) mod bench;
pub(crate) mod chat;
pub(crate) mod eval;
pub(crate) mod inspect;
pub(crate) mod logits;
pub(crate) mod pack;
pub(crate) mod plan;
pub(crate) mod run;
pub(crate) mod simulate;
pub(crate) mod synth;

use std::path::PathBuf;

use engine::{Engine, EngineOptions, Input};

use crate::args::LoadArgs;
use crate::{demo, output};

/// The directory of a model: `demo` is unpacked into the user's cache on first use.
pub(crate) fn model_path(model: &str) -> anyhow::Result<PathBuf> {
    match model {
        "demo" => demo::path(),
        path => Ok(PathBuf::from(path)),
    }
}

/// Opens a model for requests made of `input` and shows the progress.
pub(crate) fn open(model: &str, load: &LoadArgs, input: Input) -> anyhow::Result<Engine> {
    let path = model_path(model)?;
    let mut progress = output::LoadProgress::default();
    let options = EngineOptions { input, ..load.options() };
    let engine = Engine::open(&path, options, &mut |event| progress.on(event));
    progress.finish();
    Ok(engine?)
}
