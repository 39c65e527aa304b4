//! One file per command.

pub(crate) mod bench;
pub(crate) mod chat;
pub(crate) mod eval;
pub(crate) mod inspect;
pub(crate) mod list;
pub(crate) mod logits;
pub(crate) mod pack;
pub(crate) mod plan;
pub(crate) mod pull;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod shell;
pub(crate) mod simulate;
pub(crate) mod synth;

use engine::system::{self, human_bytes};
use engine::{Engine, EngineOptions, Input};

use crate::advice::Trial;
use crate::args::LoadArgs;
use crate::model::ModelName;
use crate::output;

/// A command on a model, for its errors.
pub(crate) fn trial(model: &ModelName, load: &LoadArgs) -> Trial {
    Trial { path: model.path().unwrap_or_else(|_| model.given().into()), options: load.options() }
}

/// Opens a model for requests made of `input` and shows the progress.
pub(crate) fn open(model: &ModelName, load: &LoadArgs, input: Input) -> anyhow::Result<Engine> {
    open_with(model, load, options(load), input)
}

/// As [`open`], with further choices.
pub(crate) fn open_with(
    model: &ModelName,
    load: &LoadArgs,
    options: EngineOptions,
    input: Input,
) -> anyhow::Result<Engine> {
    let path = model.path()?;
    let mut progress = output::LoadProgress::default();
    let text_bytes = options.text_bytes;
    let options = EngineOptions { input, ..options };
    let engine = Engine::open(&path, options, &mut |event| progress.on(event));
    progress.finish();
    engine.map_err(|error| trial(model, load).with_text(text_bytes).advise(error))
}

/// The options that a model is opened with. A budget beyond what this machine has is spoken of.
pub(crate) fn options(load: &LoadArgs) -> EngineOptions {
    let free = system::available_memory_bytes();
    if let (Some(memory), Some(free)) = (load.memory, free.filter(|free| load.memory > Some(*free))) {
        let (memory, free) = (human_bytes(memory), human_bytes(free));
        output::note(&format!(
            "warning: --memory {memory} is more than the {free} that are free here; if the model takes it, the system \
             swaps or ends the process"
        ));
    }
    load.options()
}
